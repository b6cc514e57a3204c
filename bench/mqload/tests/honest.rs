//! Runs the binary against its own bare server, and against a broker that loses,
//! doubles, swaps and spoils known numbers of messages: the report must be exact.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

fn run(args: &[&str]) -> (i32, Value) {
    let o = Command::new(env!("CARGO_BIN_EXE_mqload")).args(args).arg("--json").output().unwrap();
    let text = String::from_utf8(o.stdout).unwrap();
    let last = text.lines().last().unwrap_or("null");
    (o.status.code().unwrap(), serde_json::from_str(last).unwrap())
}

fn num(v: &Value, k: &str) -> u64 {
    v[k].as_u64().unwrap_or_else(|| panic!("no {k} in {v}"))
}

#[test]
fn bare_server_loses_nothing() {
    for extra in [
        &["--qos", "0"][..],
        &["--qos", "1"],
        &["--v5"],
        &["--threads", "2", "--pubs", "3"],
        &["--rate", "500"],
        &["--open-loop"],
    ] {
        let mut a = vec!["limit", "fanout", "--subs", "5", "--seconds", "0.3", "--warmup", "0.1"];
        a.extend_from_slice(extra);
        let (code, v) = run(&a);
        assert_eq!(code, 0, "{extra:?} {v}");
        assert!(num(&v, "sent") > 0, "{extra:?}");
        assert_eq!(num(&v, "expected"), 5 * num(&v, "sent"), "{extra:?}");
        for k in ["lost", "dup", "order_violations", "corrupt", "foreign", "unflushed_bytes"] {
            assert_eq!(num(&v, k), 0, "{extra:?} {k}");
        }
    }
}

#[test]
fn refused_connection_is_an_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, v) = run(&["fanout", "--port", &port.to_string(), "--seconds", "0.1"]);
    assert_eq!(code, 3);
    assert!(v["error"].as_str().unwrap().contains("could not connect"));
}

#[derive(Default, Clone, Copy, Debug)]
struct Faults {
    drop: u64,
    dup: u64,
    swap: u64,
    corrupt: u64,
    total: u64,
}

#[derive(Default)]
struct Broker {
    subs: Vec<TcpStream>,
    held: Option<Vec<u8>>,
    f: Faults,
}

impl Broker {
    fn publish(&mut self, p: &[u8]) {
        self.f.total += 1;
        let n = self.f.total;
        for (j, s) in self.subs.iter_mut().enumerate() {
            let mut out = p.to_vec();
            match j {
                0 if n % 100 == 50 => {
                    self.f.drop += 1;
                    continue;
                }
                0 if n % 400 == 80 => {
                    self.f.corrupt += 1;
                    *out.last_mut().unwrap() = b'!';
                }
                1 if n % 200 == 60 => {
                    self.f.dup += 1;
                    out.extend_from_slice(p);
                }
                2 if n % 300 == 70 => {
                    self.held = Some(out);
                    continue;
                }
                2 if n % 300 == 71 => {
                    self.f.swap += 1;
                    out.extend(self.held.take().unwrap());
                }
                _ => {}
            }
            let _ = s.write_all(&out);
        }
    }
}

/// One connection; small packets only.
fn serve(mut s: TcpStream, b: Arc<Mutex<Broker>>) {
    let mut buf = Vec::new();
    let mut tmp = [0u8; 65536];
    while let Ok(n) = s.read(&mut tmp) {
        if n == 0 {
            return;
        }
        buf.extend_from_slice(&tmp[..n]);
        loop {
            let (mut len, mut h) = (0usize, 1);
            let whole = loop {
                let Some(&d) = buf.get(h) else { break false };
                len |= ((d & 127) as usize) << (7 * (h - 1));
                h += 1;
                if d & 128 == 0 {
                    break buf.len() >= h + len;
                }
            };
            if !whole {
                break;
            }
            let p: Vec<u8> = buf.drain(..h + len).collect();
            match p[0] >> 4 {
                1 => s.write_all(&[0x20, 2, 0, 0]).unwrap(),
                3 => b.lock().unwrap().publish(&p),
                8 => {
                    s.write_all(&[0x90, 3, p[h], p[h + 1], 0]).unwrap();
                    b.lock().unwrap().subs.push(s.try_clone().unwrap());
                }
                14 => {
                    let _ = s.shutdown(std::net::Shutdown::Both);
                    return;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn faults_are_counted_exactly() {
    for (extra, topics) in
        [(&["--rate", "3000"][..], 1), (&["--rate", "max"], 1), (&["--rate", "max", "--topics", "3"], 3)]
    {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = l.local_addr().unwrap().port().to_string();
        let b = Arc::new(Mutex::new(Broker::default()));
        let b2 = b.clone();
        std::thread::spawn(move || {
            for s in l.incoming().flatten() {
                s.set_nodelay(true).unwrap();
                let b = b2.clone();
                std::thread::spawn(move || serve(s, b));
            }
        });
        let mut a = vec![
            "fanout",
            "--port",
            &port,
            "--subs",
            "3",
            "--seconds",
            "0.8",
            "--warmup",
            "0.2",
            "--drain-idle",
            "0.5",
        ];
        a.extend_from_slice(extra);
        let (code, v) = run(&a);
        assert_eq!(code, 0, "{v}");
        let f = b.lock().unwrap().f;
        assert!(f.drop > 0 && f.dup > 0 && f.swap > 0 && f.corrupt > 0, "{f:?}");
        assert_eq!(num(&v, "sent"), f.total);
        // the last held message may never have been released
        let held = b.lock().unwrap().held.is_some() as u64;
        assert_eq!(num(&v, "lost"), f.drop + f.corrupt + held, "{f:?}");
        assert_eq!(num(&v, "dup"), f.dup);
        assert_eq!(num(&v, "corrupt"), f.corrupt);
        let (same, other) = if topics == 1 { (f.swap, 0) } else { (0, f.swap) };
        assert_eq!(num(&v, "order_violations"), same);
        assert_eq!(num(&v, "cross_topic_reorders"), other);
        assert_eq!(num(&v, "delivered") + num(&v, "lost"), num(&v, "expected"));
    }
}

/// A broker that keeps what is published and gives it to whoever subscribes to `$replay/...`,
/// except the 50th, and the 60th twice.
fn keep(mut s: TcpStream, kept: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut buf = Vec::new();
    let mut tmp = [0u8; 65536];
    while let Ok(n) = s.read(&mut tmp) {
        if n == 0 {
            return;
        }
        buf.extend_from_slice(&tmp[..n]);
        loop {
            let (mut len, mut h) = (0usize, 1);
            let whole = loop {
                let Some(&d) = buf.get(h) else { break false };
                len |= ((d & 127) as usize) << (7 * (h - 1));
                h += 1;
                if d & 128 == 0 {
                    break buf.len() >= h + len;
                }
            };
            if !whole {
                break;
            }
            let p: Vec<u8> = buf.drain(..h + len).collect();
            match p[0] >> 4 {
                1 => s.write_all(&[0x20, 2, 0, 0]).unwrap(),
                3 => kept.lock().unwrap().push(p),
                8 => {
                    assert!(p[h + 4..].starts_with(b"$replay/earliest/bench/replay/"));
                    let mut out = vec![0x90, 3, p[h], p[h + 1], 0];
                    for (i, p) in kept.lock().unwrap().iter().enumerate() {
                        let times = [1, 0, 2][usize::from(i == 50) + 2 * usize::from(i == 60)];
                        out.extend(p.repeat(times));
                    }
                    s.write_all(&out).unwrap();
                }
                12 => s.write_all(&[0xD0, 0]).unwrap(),
                14 => {
                    let _ = s.shutdown(std::net::Shutdown::Both);
                    return;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_replay_is_counted_exactly() {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = l.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        let kept = Arc::new(Mutex::new(Vec::new()));
        for s in l.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || keep(s, kept));
        }
    });
    let (code, v) = run(&[
        "replay",
        "--port",
        &port,
        "--qos",
        "0",
        "--readers",
        "2",
        "--messages",
        "100",
        "--drain-idle",
        "0.3",
    ]);
    assert_eq!(code, 0, "{v}");
    assert_eq!((num(&v, "expected"), num(&v, "delivered")), (200, 198), "{v}");
    assert_eq!((num(&v, "lost"), num(&v, "dup"), num(&v, "order_violations")), (2, 2, 0), "{v}");
}
