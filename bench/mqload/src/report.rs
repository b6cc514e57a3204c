//! The human table and the JSON object.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String)>,
    pub json: Map<String, Value>,
    pub warnings: Vec<String>,
}

impl Report {
    pub fn put(&mut self, key: &str, v: impl Into<Value>) {
        self.json.insert(key.into(), v.into());
    }
    pub fn row(&mut self, name: &str, text: impl Into<String>) {
        self.rows.push((name.into(), text.into()));
    }
    pub fn warn(&mut self, s: impl Into<String>) {
        self.warnings.push(s.into());
    }

    /// A latency distribution, in the table as milliseconds or microseconds.
    pub fn latency(&mut self, name: &str, key: &str, h: &Histogram<u64>) {
        if h.is_empty() {
            self.put(key, Value::Null);
            self.row(name, "no samples");
            return;
        }
        let q = |p: f64| h.value_at_quantile(p);
        let us = |v: u64| round(v as f64 / 1000.0, 1);
        self.put(
            key,
            json!({
                "count": h.len(), "mean": round(h.mean() / 1000.0, 1), "min": us(h.min()), "p50": us(q(0.5)), "p90": us(q(0.9)),
                "p99": us(q(0.99)), "p999": us(q(0.999)), "max": us(h.max()),
            }),
        );
        self.row(
            name,
            format!(
                "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}  ({} samples)",
                t(q(0.5)),
                t(q(0.9)),
                t(q(0.99)),
                t(q(0.999)),
                t(h.max()),
                group(h.len())
            ),
        );
    }

    pub fn print(mut self, as_json: bool) {
        let w = self.rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
        for (k, v) in &self.rows {
            println!("{k:<w$}  {v}");
        }
        for x in &self.warnings {
            println!("WARNING: {x}");
        }
        if as_json {
            let w = self.warnings.clone();
            self.put("warnings", w);
            println!("{}", Value::Object(self.json));
        }
    }
}

pub fn round(v: f64, digits: i32) -> f64 {
    if !v.is_finite() {
        return 0.0;
    }
    let k = 10f64.powi(digits);
    (v * k).round() / k
}

/// Nanoseconds for people.
pub fn t(ns: u64) -> String {
    let f = ns as f64;
    if f < 1e6 {
        format!("{:.0}us", f / 1e3)
    } else if f < 1e9 {
        format!("{:.2}ms", f / 1e6)
    } else {
        format!("{:.2}s", f / 1e9)
    }
}

pub fn group(n: u64) -> String {
    let s = n.to_string();
    let mut o = String::new();
    for (i, c) in s.chars().enumerate() {
        if i > 0 && (s.len() - i).is_multiple_of(3) {
            o.push(' ');
        }
        o.push(c);
    }
    o
}

pub fn kb(k: u64) -> String {
    if k >= 10 * 1024 { format!("{:.1} MiB", k as f64 / 1024.0) } else { format!("{k} KiB") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers() {
        assert_eq!(super::group(1234567), "1 234 567");
        assert_eq!(super::group(12), "12");
        assert_eq!(super::round(1.2345, 2), 1.23);
        assert_eq!(super::round(f64::NAN, 2), 0.0);
        assert_eq!(super::t(1_500_000), "1.50ms");
    }
}
