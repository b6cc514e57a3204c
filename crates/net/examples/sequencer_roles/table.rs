//! The table: medians of each role's rounds, and the median of the rounds' own ratios.

use crate::case::{Case, Figures, ROLES, share_of_windows};

type Figure = (&'static str, fn(&Figures) -> f64);

const FIGURES: [Figure; 5] = [
    ("CPU us/delivery", |it| it.cpu_us),
    ("rate /s", |it| it.rate),
    ("p50 us", |it| it.p50_us),
    ("p99 us", |it| it.p99_us),
    ("longest ping ms", |it| it.ping_ms),
];

/// The table's head.
pub fn print_head() {
    let [depositor, thread] = ROLES;
    println!("\n| disk | work | figure | {depositor} | {thread} | {depositor}/{thread} |");
    println!("|---|---|---|---:|---:|---:|");
}

/// The rows of a case.
pub fn print_case(case: &Case, rounds: &[[Figures; 2]]) {
    for (name, figure) in FIGURES {
        let of = |role: usize| median(rounds.iter().map(|round| figure(&round[role])).collect());
        let ratio =
            median(rounds.iter().map(|[depositor, thread]| figure(depositor) / figure(thread)).collect());
        let (depositor, thread) = (shown(of(0)), shown(of(1)));
        println!("| {} | {} | {name} | {depositor} | {thread} | {ratio:.2} |", case.disk, case.work);
    }
    if case.is_of_syncs() {
        let share =
            |role: usize| median(rounds.iter().map(|round| share_of_windows(round[role].rate)).collect());
        let (depositor, thread) = (shown(share(0)), shown(share(1)));
        println!("| {} | {} | rate x 7 ms / windows | {depositor} | {thread} | |", case.disk, case.work);
    }
    let wrong: f64 = rounds.iter().flatten().map(|figures| figures.wrong).sum();
    if wrong != 0.0 {
        println!("| {} | {} | LOST, DOUBLED, OUT OF ORDER | {wrong} in all | | |", case.disk, case.work);
    }
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
