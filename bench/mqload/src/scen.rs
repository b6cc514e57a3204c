//! The scenarios.

use crate::codec;
use crate::engine::*;
use crate::limit::Server;
use crate::report::{Report, group, kb, round, t};
use crate::sys::{self, Machine, Mem};
use crate::tls;
use crate::{Cli, Common, Flow, Limit, Rate};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

type R<T> = Result<T, Fail>;

pub fn run(cli: Cli) -> Result<Report, (&'static str, Fail)> {
    use crate::Cmd::*;
    let o = cli.common;
    macro_rules! go {
        ($n:literal, $e:expr) => {{
            let mut s = Scen::new(o, $n).map_err(|f| ($n, f))?;
            let f: &dyn Fn(&mut Scen) -> R<()> = &$e;
            f(&mut s).map_err(|f| ($n, f))?;
            Ok(s.rep)
        }};
    }
    match cli.cmd {
        Fanout { f, subs, pubs, filter, topic } => {
            go!("fanout", |s| s.fanout(&f, subs, pubs, &filter, topic.as_deref(), false))
        }
        Fanin { f, subs, pubs, filter, topic } => {
            go!("fanin", |s| s.fanout(&f, subs, pubs, &filter, topic.as_deref(), true))
        }
        Pairs { f, n } => go!("pairs", |s| s.pairs(&f, n)),
        Conns { n, rate, sub, qos, hold, per_address } => {
            go!("conns", |s| s.conns(n, rate, sub, qos, hold, per_address))
        }
        Offline {
            sessions,
            messages,
            rate,
            qos,
            inflight,
            topics,
            filter,
            drain,
            warm_messages,
            watch_file,
        } => {
            let away = Away {
                sessions,
                drain: drain.unwrap_or(sessions).min(sessions),
                messages,
                warm: warm_messages,
                rate,
                file: watch_file,
            };
            go!("offline", |s| s.offline(&away, qos, inflight, topics, &filter))
        }
        Replay { readers, messages, qos, sub_qos, inflight, from } => {
            go!("replay", |s| s.replay(readers, messages, qos, sub_qos.unwrap_or(qos), inflight, &from))
        }
        Slow { subs, slow, rate, seconds, qos, inflight, filter, slow_rcvbuf } => {
            go!("slow", |s| s.slow(subs, slow, rate, seconds, qos, inflight, &filter, slow_rcvbuf))
        }
        Retained { n, subs, qos, inflight, filter, keep } => {
            go!("retained", |s| s.retained(n, subs, qos, inflight, &filter, keep))
        }
        Durable { inflight, seconds, rate, qos, ledger } => {
            go!("durable", |s| s.durable(inflight, seconds, rate, qos, &ledger))
        }
        DurableCheck { ledger, keep } => go!("durable-check", |s| s.durable_check(&ledger, keep)),
        Limit { what: self::Limit::Fanout { f, subs, pubs } } => {
            go!("limit fanout", |s| s.limit_fanout(&f, subs, pubs))
        }
    }
}

/// Connections per loopback source address: the kernel's search for a free port gets slow when
/// an address has used up much of the range.
const PER_ADDRESS: u32 = 2000;

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s.max(0.0))
}

fn ns(s: f64) -> u64 {
    (s.max(0.0) * 1e9) as u64
}

/// The subject of the CPU measurement.
enum Subject<'a> {
    None,
    Pids(Vec<u32>),
    Thread(&'a Server),
}

#[derive(Default, Clone, Copy)]
struct Sample {
    t: u64,
    own: f64,
    user: f64,
    sys: f64,
    m: Machine,
}

impl Subject<'_> {
    fn sample(&self) -> R<Sample> {
        let mut s = Sample {
            t: sys::now_ns(),
            own: sys::process_cpu_ns() as f64 / 1e9,
            m: sys::machine(),
            ..Default::default()
        };
        match self {
            Subject::None => {}
            Subject::Pids(v) => {
                for &p in v {
                    let (u, k) = sys::pid_cpu(p)
                        .ok_or_else(|| Fail::new(1, format!("no process {p} (--broker-pid)")))?;
                    s.user += u;
                    s.sys += k;
                }
            }
            Subject::Thread(srv) => {
                let c = srv.cpu_ns() as f64 / 1e9;
                s.own -= c;
                s.user = c;
            }
        }
        Ok(s)
    }
    fn known(&self) -> bool {
        !matches!(self, Subject::None)
    }
    fn mem(&self, exact: bool) -> Option<Mem> {
        let Subject::Pids(v) = self else { return None };
        let mut a = Mem::default();
        for &p in v {
            let m = if exact { sys::pid_mem_exact(p)? } else { sys::pid_mem(p)? };
            a.rss_kb += m.rss_kb;
            a.hwm_kb += m.hwm_kb;
            a.pss_kb += m.pss_kb;
            a.threads += m.threads;
        }
        Some(a)
    }
}

/// Loss, duplicates and order over all (publisher, subscriber) pairs.
#[derive(Default)]
struct Tally {
    expected: u64,
    unique: u64,
    lost: u64,
    dup: u64,
    dup_flagged: u64,
    order: u64,
    cross: u64,
    gaps: u64,
    pairs_with_loss: u64,
    worst_pair: u64,
}

fn tally(o: &WorkerOut, quiet: bool) -> Tally {
    let mut y = Tally::default();
    let sent: std::collections::HashMap<u32, u64> = o.pubs.iter().map(|p| (p.id, p.sent)).collect();
    for s in o.subs.iter().filter(|s| s.quiet == quiet) {
        for (i, tr) in s.trackers.iter().enumerate() {
            let n = sent.get(&(s.pub_base + i as u32)).copied().unwrap_or(0);
            y.expected += n;
            y.unique += tr.unique;
            let l = n.saturating_sub(tr.unique);
            y.lost += l;
            y.pairs_with_loss += (l > 0) as u64;
            y.worst_pair = y.worst_pair.max(l);
            if let Some(c) = &tr.cold {
                y.dup += c.dup;
                y.dup_flagged += c.dup_flagged;
                y.order += c.order;
                y.cross += c.cross_topic;
                y.gaps += c.gaps;
            }
        }
    }
    y
}

/// Sessions that are away: how many, and for what.
struct Away {
    sessions: u32,
    /// The first so many come back.
    drain: u32,
    messages: u64,
    /// Messages before the sessions are there, so that the broker's buffers are full when its memory is measured.
    warm: u64,
    rate: Rate,
    /// A file of the broker's whose growth is reported.
    file: Option<PathBuf>,
}

impl Away {
    fn pace(&self) -> Pace {
        match self.rate {
            Rate::Max => Pace::Max,
            Rate::PerSec(r) => Pace::Rate(r),
        }
    }
}

struct Route {
    filter: String,
    base: u32,
    count: u32,
}

struct Scen {
    o: Common,
    rep: Report,
    addr: SocketAddr,
    prefix: String,
    magic: u32,
}

impl Scen {
    fn new(o: Common, name: &'static str) -> R<Scen> {
        if o.threads == 0 || o.size < HEADER {
            return Err(Fail::new(1, format!("--threads must be at least 1 and --size at least {HEADER}")));
        }
        if !o.cpus.is_empty() {
            sys::pin(&o.cpus).map_err(|e| Fail::new(1, format!("--cpus: {e}")))?;
        }
        let addr = (o.host.as_str(), o.port)
            .to_socket_addrs()
            .map_err(|e| Fail::new(1, format!("{}: {e}", o.host)))?
            .next()
            .ok_or_else(|| Fail::new(1, "no address"))?;
        let mut rep = Report::default();
        rep.put("tool", "mqload");
        rep.put("version", env!("CARGO_PKG_VERSION"));
        rep.put("scenario", name);
        if let Some(l) = &o.label {
            rep.put("label", l.as_str());
        }
        rep.put("target", addr.to_string());
        rep.put("mqtt", if o.v5 { "5.0" } else { "3.1.1" });
        rep.put(
            "transport",
            format!("{}{}", if o.ws { "ws" } else { "tcp" }, if o.tls { "+tls" } else { "" }),
        );
        rep.put("threads", o.threads);
        rep.put("tcp_congestion_control", sys::congestion_control());
        let prefix = o.client_prefix.clone().unwrap_or_else(|| format!("ml{:x}", std::process::id()));
        if o.reset_peak {
            for &p in &o.broker_pid {
                sys::reset_peak(p).map_err(|e| Fail::new(1, format!("--reset-peak, process {p}: {e}")))?;
            }
        }
        Ok(Scen { o, rep, addr, prefix, magic: 0x4D51_0000 | (sys::random_u32() & 0xffff) })
    }

    fn payload(&self) -> R<Payload> {
        payload(self.o.size, self.o.payload_file.as_deref())
    }

    fn config(&self, payload: Payload, topics: u64) -> R<Config> {
        let o = &self.o;
        let tls = if o.tls {
            let c = tls::config(o.ca.as_deref(), o.insecure, o.tls_resume)?;
            Some((c, tls::name(o.sni.as_deref().unwrap_or(&o.host))?))
        } else {
            None
        };
        Ok(Config {
            net: Net {
                addr: self.addr,
                host: o.host.clone(),
                v5: o.v5,
                keepalive: o.keepalive,
                username: o.username.clone(),
                password: o.password.clone(),
                tls,
                ws: o.ws.then(|| o.ws_path.clone()),
                receive_max: o.receive_maximum,
            },
            magic: self.magic,
            payload,
            topics,
            threads: o.threads,
            nap_ns: o.nap_us.map(|n| n * 1000),
            kernel_stamps: !o.user_stamps,
            tick_ns: o.tick_us * 1000,
            stall_ns: o.stall_ms * 1_000_000,
            ledger: None,
            session_expiry: o.session_expiry,
        })
    }

    fn start(&self, cfg: Config, specs: Vec<Spec>, w: Option<Windows>) -> R<Engine> {
        let want = specs.len() as u64 + 64;
        let have = sys::raise_nofile(want);
        if have < want {
            return Err(Fail::new(
                1,
                format!("{} sockets needed, but only {have} open files are allowed", specs.len()),
            ));
        }
        Engine::start(cfg, specs, w)
    }

    fn subject(&self) -> Subject<'static> {
        if self.o.broker_pid.is_empty() { Subject::None } else { Subject::Pids(self.o.broker_pid.clone()) }
    }

    /// A loopback source address, so that the ports suffice.
    fn src(&self, i: u32, per: u32) -> Option<Ipv4Addr> {
        match self.addr {
            SocketAddr::V4(a) if a.ip().is_loopback() && i >= per => {
                let k = 1 + i / per;
                Some(Ipv4Addr::from(0x7f00_0000 + k))
            }
            _ => None,
        }
    }

    fn connect(&self, e: &Engine, from: u32, to: u32) -> R<()> {
        let n = e.live().connected + (to - from) as u64;
        e.cmd(Cmd::Connect { from, to, rate: 0.0, window: self.o.connect_window, only_dead: false });
        e.wait(secs(self.o.connect_timeout), "connecting", |l| l.connected >= n).map(|_| ())
    }

    fn subscribe(&self, e: &Engine, from: u32, to: u32) -> R<()> {
        let n = e.live().subacked + (to - from) as u64;
        e.cmd(Cmd::Subscribe { from, to });
        e.wait(secs(self.o.connect_timeout), "subscribing", |l| l.subacked >= n).map(|_| ())
    }

    fn ping(&self, e: &Engine, from: u32, to: u32) -> R<()> {
        let n = e.live().pongs + (to - from) as u64;
        e.cmd(Cmd::Ping { from, to });
        e.wait(secs(self.o.connect_timeout), "pings", |l| l.pongs >= n).map(|_| ())
    }

    // ---- reporting helpers ----

    /// Client `i` publishes until it has sent `count` messages in all.
    fn publish_all(&self, e: &Engine, i: u32, pace: Pace, count: u64) -> R<()> {
        let done = e.live().pub_done;
        e.cmd(Cmd::Publish {
            from: i,
            to: i + 1,
            t0: sys::now_ns(),
            w0: u64::MAX,
            w1: 0,
            stop_at: u64::MAX,
            pace,
            count,
        });
        e.wait(Duration::from_secs(600), "publishing", |l| l.pub_done > done)?;
        self.ping(e, i, i + 1)
    }

    fn put_broker(&mut self, key: &str, a: &Sample, b: &Sample, sub: &Subject, messages: u64, what: &str) {
        let own = b.own - a.own;
        let wall = (b.t - a.t) as f64 / 1e9;
        let per = |c: f64| if messages > 0 { round(c * 1e6 / messages as f64, 3) } else { 0.0 };
        let suffix = if key.is_empty() { String::new() } else { format!("_{key}") };
        self.rep.put(
            &format!("generator{suffix}"),
            json!({"cpu_s": round(own, 4), "cpu_pct": round(own / wall * 100.0, 1), format!("us_per_{what}"): per(own)}),
        );
        self.rep.row(
            &format!("generator {key}"),
            format!("{own:.3} s CPU ({:.0} % of a core), {:.2} us per {what}", own / wall * 100.0, per(own)),
        );
        if sub.known() {
            let (u, k) = (b.user - a.user, b.sys - a.sys);
            let c = u + k;
            let mut v = json!({"cpu_s": round(c, 4), "cpu_pct": round(c / wall * 100.0, 1), format!("us_per_{what}"): per(c)});
            if let Subject::Pids(p) = sub {
                v["pids"] = json!(p);
                v["user_s"] = json!(round(u, 3));
                v["sys_s"] = json!(round(k, 3));
            }
            let mut text =
                format!("{c:.3} s CPU ({:.0} % of a core), {:.2} us per {what}", c / wall * 100.0, per(c));
            if let Some(m) = sub.mem(false) {
                v["rss_kb"] = json!(m.rss_kb);
                v["hwm_kb"] = json!(m.hwm_kb);
                v["threads"] = json!(m.threads);
                text += &format!(", RSS {}, peak {}", kb(m.rss_kb), kb(m.hwm_kb));
            }
            self.rep.put(&format!("broker{suffix}"), v);
            let who = if matches!(sub, Subject::Thread(_)) { "bare server" } else { "broker" };
            self.rep.row(&format!("{who} {key}"), text);
        }
        // the time that was not idle: tick-based user and system times are not exact enough
        let d = wall * b.m.cpus.max(1.0);
        let busy = (100.0 * (1.0 - (b.m.idle - a.m.idle) / d)).clamp(0.0, 100.0);
        let steal = 100.0 * (b.m.steal - a.m.steal) / d;
        let mut v = json!({"busy_pct": round(busy, 1), "steal_pct": round(steal, 1), "cpus": b.m.cpus});
        let mut text = format!("{busy:.0} % busy, {steal:.1} % stolen");
        if sub.known() {
            let known = 100.0 * (own + b.user - a.user + b.sys - a.sys) / d;
            let others = (busy - known - steal).max(0.0);
            v["others_pct"] = json!(round(others, 1));
            text += &format!(", {others:.0} % by others (interrupts included)");
            if others > 15.0 {
                self.rep.warn(format!(
                    "other processes used {others:.0} % of the machine: repeat this when it is quiet"
                ));
            }
        }
        if steal > 5.0 {
            self.rep.warn(format!("the host took {steal:.0} % of the machine away (steal): repeat this"));
        }
        self.rep.put(&format!("machine{suffix}"), v);
        self.rep.row(&format!("machine {key}"), text);
    }

    fn put_tally(&mut self, y: &Tally, c: &Counters) {
        for (k, v) in [
            ("expected", y.expected),
            ("delivered", y.unique),
            ("lost", y.lost),
            ("dup", y.dup),
            ("dup_flagged", y.dup_flagged),
            ("order_violations", y.order),
            ("cross_topic_reorders", y.cross),
            ("gaps", y.gaps),
            ("pairs_with_loss", y.pairs_with_loss),
            ("corrupt", c.corrupt),
            ("foreign", c.foreign),
            ("unexpected", c.unexpected),
            ("rejected", c.rejected),
            ("bad_acks", c.bad_ack),
            ("retransmits", c.retransmit),
        ] {
            self.rep.put(k, v);
        }
        let pct = if y.expected > 0 { y.lost as f64 * 100.0 / y.expected as f64 } else { 0.0 };
        self.rep.row(
            "integrity",
            format!(
                "expected {}, lost {} ({pct:.3} %), dup {}, order violations {}",
                group(y.expected),
                group(y.lost),
                group(y.dup),
                group(y.order)
            ),
        );
        for (n, v) in [
            ("corrupt payloads", c.corrupt),
            ("messages of other runs or publishers", c.foreign + c.unexpected),
            ("publishes rejected by the broker", c.rejected),
            ("acknowledgements that match nothing", c.bad_ack),
            ("subscriptions granted below the QoS asked for", c.downgraded),
        ] {
            if v > 0 {
                self.rep.warn(format!("{} {n}", group(v)));
            }
        }
    }

    // ---- flows ----

    fn fanout(
        &mut self,
        f: &Flow,
        subs: u32,
        pubs: u32,
        filter: &str,
        topic: Option<&str>,
        per_pub: bool,
    ) -> R<()> {
        let topics = topics(filter, topic, pubs, f.topics, per_pub)?;
        let routes = (0..subs).map(|_| Route { filter: filter.into(), base: 0, count: pubs }).collect();
        let each = vec![subs as u64; pubs as usize];
        self.rep.put("filter", filter);
        let s = self.subject();
        self.flow(f, topics, routes, each, &s)
    }

    fn pairs(&mut self, f: &Flow, n: u32) -> R<()> {
        let mut ts = Vec::new();
        let mut routes = Vec::new();
        for i in 0..n {
            ts.push(Arc::new(
                (0..f.topics).map(|t| format!("bench/pair/{i}/{t}").into_bytes().into()).collect(),
            ));
            let filter =
                if f.topics == 1 { format!("bench/pair/{i}/0") } else { format!("bench/pair/{i}/+") };
            routes.push(Route { filter, base: i, count: 1 });
        }
        let s = self.subject();
        self.flow(f, ts, routes, vec![1; n as usize], &s)
    }

    fn limit_fanout(&mut self, f: &Flow, subs: u32, pubs: u32) -> R<()> {
        if f.qos > 1 || self.o.tls || self.o.ws {
            return Err(Fail::new(1, "limit works with QoS 0 and 1 over plain TCP"));
        }
        let srv = Server::start()?;
        self.addr = srv.addr;
        self.rep.put("target", "internal bare epoll server");
        let topics = topics("bench/#", None, pubs, f.topics, false)?;
        let routes = (0..subs).map(|_| Route { filter: "bench/#".into(), base: 0, count: pubs }).collect();
        self.flow(f, topics, routes, vec![subs as u64; pubs as usize], &Subject::Thread(&srv))?;
        srv.finish()?;
        Ok(())
    }

    fn flow(
        &mut self,
        f: &Flow,
        topics: Vec<Topics>,
        routes: Vec<Route>,
        subs_of: Vec<u64>,
        subject: &Subject,
    ) -> R<()> {
        let (np, nsub) = (topics.len() as u32, routes.len() as u32);
        if np == 0 || nsub == 0 {
            return Err(Fail::new(1, "at least one publisher and one subscriber are needed"));
        }
        let max = f.rate == Rate::Max;
        let closed = max && !f.open_loop;
        let window = f.window.unwrap_or((16 * np as u64).max(256)).max(1);
        let win = (window / np as u64).max(1);
        let block = f.refill.unwrap_or((win / 16).max(4.min(win / 2))).clamp(1, win);
        let shift = block.ilog2();
        let sub_qos = f.sub_qos.unwrap_or(f.qos);
        let inflight = in_flight(f.inflight, f.qos, 1024);
        let inflight = if closed { inflight.min(win) } else { inflight };

        let mut specs: Vec<Spec> = Vec::new();
        for (i, r) in routes.into_iter().enumerate() {
            specs.push(Spec {
                cid: format!("{}s{i}", self.prefix),
                clean: true,
                src: self.src(i as u32, PER_ADDRESS),
                sub: Some(SubSpec {
                    filter: r.filter,
                    qos: sub_qos,
                    pub_base: r.base,
                    pub_count: r.count,
                    quiet: false,
                }),
                ..Default::default()
            });
        }
        for (i, t) in topics.into_iter().enumerate() {
            specs.push(Spec {
                cid: format!("{}p{i}", self.prefix),
                clean: true,
                src: self.src(nsub + i as u32, PER_ADDRESS),
                publ: Some(PubSpec { id: i as u32, qos: f.qos, retain: false, topics: t, inflight }),
                ..Default::default()
            });
        }
        let payload = self.payload()?;
        let size = payload.mean_len();
        let cfg = self.config(payload, f.topics as u64)?;
        let nap = if !max {
            Nap::Fixed
        } else if closed && window < 64 {
            Nap::Off
        } else if f.qos == 0 && sub_qos == 0 {
            Nap::Bulk
        } else {
            Nap::Acked
        };
        let windows = closed.then(|| Windows { each: subs_of.iter().map(|&s| (s, win)).collect(), shift });
        let e = self.start(cfg, specs, windows)?;
        let all = nsub + np;
        self.connect(&e, 0, nsub)?;
        self.subscribe(&e, 0, nsub)?;
        self.connect(&e, nsub, all)?;
        std::thread::sleep(Duration::from_millis(50));

        let t0 = sys::now_ns() + 5_000_000;
        let w0 = t0 + ns(self.o.warmup);
        let w1 = w0 + ns(f.seconds);
        e.cmd(Cmd::Nap(nap));
        let pace = match f.rate {
            Rate::Max => Pace::Max,
            Rate::PerSec(r) => Pace::Rate(r),
        };
        e.cmd(Cmd::Publish { from: nsub, to: all, t0, w0, w1, stop_at: w1, pace, count: u64::MAX });
        e.sleep_until(w0, || {})?;
        let a = subject.sample()?;
        let mut peak = 0;
        e.sleep_until(w1, || peak = peak.max(subject.mem(false).map_or(0, |m| m.rss_kb)))?;
        let b = subject.sample()?;
        sys::nap_ns(STOP_GRACE);
        e.cmd(Cmd::PubStop);
        std::thread::sleep(Duration::from_millis(20));

        // let everything that was sent arrive
        let per_msg = if nsub == np && subs_of.iter().all(|&s| s == 1) { 1 } else { nsub as u64 };
        let since = Instant::now();
        let complete = e.settle(
            secs(self.o.drain_idle),
            secs(self.o.drain_max),
            |l| l.unique + l.dup + l.acked,
            |l| l.unique == l.sent * per_msg && (f.qos == 0 || l.acked == l.sent),
        )?;
        let drain = since.elapsed();
        std::thread::sleep(Duration::from_millis(100)); // late duplicates
        e.check()?;
        e.disconnect(0, all, Duration::from_secs(2));
        let o = e.finish();

        let y = tally(&o, false);
        let secs_w = (w1 - w0) as f64 / 1e9;
        let c = o.c;
        let rate = c.win_delivered as f64 / secs_w;
        let p = &mut self.rep;
        let mode = match f.rate {
            Rate::PerSec(r) => format!("{r}/s"),
            Rate::Max if closed => {
                format!("max, closed loop, window {win}{}", if np > 1 { " per publisher" } else { "" })
            }
            Rate::Max => "max, open loop".into(),
        };
        let name = p.json["scenario"].as_str().unwrap_or("").to_string();
        p.row(
            &name,
            format!(
                "{np} publisher(s), {nsub} subscriber(s), QoS {}/{sub_qos}, {size:.0} B, {} topic(s), {mode}, MQTT {}, {}",
                f.qos,
                f.topics,
                p.json["mqtt"].as_str().unwrap_or(""),
                p.json["transport"].as_str().unwrap_or("")
            ),
        );
        p.put(
            "params",
            json!({
                "pubs": np, "subs": nsub, "qos": f.qos, "sub_qos": sub_qos, "size": round(size, 1), "topics": f.topics,
                "rate": match f.rate { Rate::Max => Value::from("max"), Rate::PerSec(r) => Value::from(r) },
                "closed_loop": closed, "window_per_pub": if closed { Value::from(win) } else { Value::Null },
                "refill": if closed { Value::from(1u64 << shift) } else { Value::Null },
                "inflight": inflight, "nap_us": self.o.nap_us, "warmup": self.o.warmup, "seconds": f.seconds,
            }),
        );
        let sent: u64 = o.pubs.iter().map(|x| x.sent).sum();
        let acked: u64 = o.pubs.iter().map(|x| x.acked).sum();
        let offered: u64 = o.pubs.iter().map(|x| x.offered).sum();
        let not_sent: u64 = o.pubs.iter().map(|x| x.not_sent).sum();
        let stalls: u64 = o.pubs.iter().map(|x| x.stalls).sum();
        let stalled: u64 = o.pubs.iter().map(|x| x.stalled_msgs).sum();
        let unflushed: u64 = o.pubs.iter().map(|x| x.unflushed).sum();
        p.put("window_s", round(secs_w, 3));
        p.put("sent", sent);
        p.put("acked", acked);
        p.put("window_sent", c.win_sent);
        p.put("sent_per_s", round(c.win_sent as f64 / secs_w, 1));
        p.put("acked_per_s", round(c.win_acked as f64 / secs_w, 1));
        p.put("window_delivered", c.win_delivered);
        p.put("delivered_per_s", round(rate, 1));
        p.put("delivered_mb_per_s", round(c.win_bytes as f64 / secs_w / 1e6, 2));
        p.row(
            "published",
            format!(
                "{:.0} messages/s in the window; {} in all{}",
                c.win_sent as f64 / secs_w,
                group(sent),
                if f.qos > 0 { format!(", {} acknowledged", group(acked)) } else { String::new() }
            ),
        );
        p.row(
            "delivered",
            format!(
                "{} per second ({:.1} MB/s of payload)",
                group(rate as u64),
                c.win_bytes as f64 / secs_w / 1e6
            ),
        );
        let mut per = o.per_sec.clone();
        per.truncate(secs_w as usize);
        p.put("per_second", per.clone());
        if per.len() > 1 {
            let (lo, hi) = (per.iter().min().unwrap(), per.iter().max().unwrap());
            p.row("each second", format!("{} to {}", group(*lo), group(*hi)));
        }
        if nsub > 1 {
            let v: Vec<u64> = o.subs.iter().map(|s| s.win_delivered).collect();
            let (lo, hi) = (*v.iter().min().unwrap(), *v.iter().max().unwrap());
            p.put("per_subscriber_min", lo);
            p.put("per_subscriber_max", hi);
            p.row("per subscriber", format!("{} to {} in the window", group(lo), group(hi)));
        }
        p.latency("latency", "latency_us", &o.hist);
        if f.qos > 0 {
            p.latency("ack latency", "ack_latency_us", &o.ack_hist);
        }
        self.put_tally(&y, &c);
        let p = &mut self.rep;
        p.put("drain_s", round(drain.as_secs_f64(), 3));
        p.put("drained", complete == Settled::Done);
        drain_warning(p, complete, &self.o);
        p.put("window_stalls", stalls);
        p.put("window_stalled_messages", stalled);
        p.put("unflushed_bytes", unflushed);
        if let Rate::PerSec(r) = f.rate {
            p.put("offered", offered);
            p.put("not_sent", not_sent);
            p.put("late_sends", c.late_sends);
            p.put("max_lag_us", c.max_lag_ns / 1000);
            p.row(
                "schedule",
                format!(
                    "{} of {} sent more than 2 ms late, at most {}",
                    group(c.late_sends),
                    group(offered),
                    t(c.max_lag_ns)
                ),
            );
            if not_sent > offered / 1000 || (c.win_sent as f64) < 0.98 * r * secs_w {
                p.warn(format!(
                    "asked for {r} messages/s, sent {:.0}; {} due messages were never sent (back-pressure)",
                    c.win_sent as f64 / secs_w,
                    group(not_sent)
                ));
            }
        }
        if stalls > 0 {
            p.warn(format!(
                "{stalls} times a full window made no progress for {} ms ({} messages given up)",
                self.o.stall_ms,
                group(stalled)
            ));
        }
        if unflushed > 0 {
            p.warn(format!("{unflushed} bytes could not be sent before the end; they count as lost"));
        }
        self.put_broker("", &a, &b, subject, c.win_delivered, "delivery");
        self.rep.json["generator"]["reads"] = json!(c.reads);
        self.rep.json["generator"]["loops"] = json!(c.loops);
        self.rep.json["generator"]["naps"] = json!(c.naps);
        if peak > 0 {
            self.rep.json["broker"]["rss_peak_window_kb"] = json!(peak);
        }
        let share = (b.own - a.own) / ((b.t - a.t) as f64 / 1e9) / self.o.threads as f64;
        if share > 0.85 {
            self.rep.warn(format!(
                "the generator used {:.0} % of its thread(s): the result is a lower bound",
                share * 100.0
            ));
        }
        Ok(())
    }

    // ---- connections ----

    fn conns(&mut self, n: u32, rate: Rate, sub: bool, qos: u8, hold: f64, per: u32) -> R<()> {
        let specs = (0..n)
            .map(|i| Spec {
                cid: format!("{}c{i}", self.prefix),
                clean: true,
                src: self.src(i, per.clamp(1, 28000)),
                sub: sub.then(|| SubSpec {
                    filter: format!("bench/idle/{i}"),
                    qos,
                    pub_base: 0,
                    pub_count: 0,
                    quiet: false,
                }),
                ..Default::default()
            })
            .collect();
        let e = self.start(self.config(payload(HEADER, None)?, 1)?, specs, None)?;
        let subject = self.subject();
        let m0 = subject.mem(true);
        let a = subject.sample()?;
        let r = match rate {
            Rate::Max => 0.0,
            Rate::PerSec(r) => r,
        };
        let limit = self.o.connect_timeout + if r > 0.0 { n as f64 / r } else { n as f64 / 500.0 };
        let start = sys::now_ns();
        e.cmd(Cmd::Connect { from: 0, to: n, rate: r, window: self.o.connect_window, only_dead: false });
        let l = e.wait(secs(limit), "connecting", |l| l.connected >= n as u64)?;
        let took = (l.last_connack - start) as f64 / 1e9;
        let b = subject.sample()?;
        let m1 = subject.mem(true);
        let mut m2 = None;
        if sub {
            self.subscribe(&e, 0, n)?;
            m2 = subject.mem(true);
        }
        std::thread::sleep(secs(hold));
        let mh = subject.mem(true);
        let ti = Instant::now();
        self.ping(&e, 0, n)?;
        let ping = ti.elapsed().as_secs_f64();
        let ti = Instant::now();
        let closed = e.disconnect(0, n, Duration::from_secs(10));
        let disc = ti.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        let m3 = subject.mem(true);
        let o = e.finish();
        let p = &mut self.rep;
        p.row(
            "conns",
            format!(
                "{n} connections, {}, {} in progress",
                if r > 0.0 { format!("{r}/s") } else { "max".into() },
                self.o.connect_window
            ),
        );
        p.put("params", json!({"n": n, "rate": if r > 0.0 { Value::from(r) } else { Value::from("max") }, "sub": sub, "connect_window": self.o.connect_window, "hold": hold}));
        p.put("connected", n);
        p.put("connect_s", round(took, 4));
        p.put("connects_per_s", round(n as f64 / took, 1));
        p.row("connected", format!("{n} in {took:.3} s, {:.0} per second", n as f64 / took));
        p.latency("connect to CONNACK", "connack_latency_us", &o.conn_hist);
        p.put("alive_after_hold", n);
        p.put("ping_all_s", round(ping, 4));
        p.row("alive after hold", format!("{n}, all answered a ping within {ping:.3} s"));
        p.put("disconnect_s", round(disc, 4));
        p.put("disconnected_by_broker", closed);
        p.row(
            "disconnect",
            format!("{disc:.3} s{}", if closed { "" } else { ", NOT all closed by the broker" }),
        );
        if let (Some(m0), Some(m1), Some(mh), Some(m3)) = (m0, m1, mh, m3) {
            let each = |a: u64, b: u64| round((b as f64 - a as f64) * 1024.0 / n as f64, 1);
            p.put(
                "memory",
                json!({
                    "rss_before_kb": m0.rss_kb, "rss_connected_kb": m1.rss_kb, "rss_held_kb": mh.rss_kb, "rss_after_kb": m3.rss_kb,
                    "pss_before_kb": m0.pss_kb, "pss_connected_kb": m1.pss_kb, "pss_held_kb": mh.pss_kb,
                    "rss_bytes_per_conn": each(m0.rss_kb, mh.rss_kb), "pss_bytes_per_conn": each(m0.pss_kb, mh.pss_kb),
                    "rss_bytes_per_sub": m2.map(|m2| each(m1.rss_kb, m2.rss_kb)),
                }),
            );
            p.row(
                "memory",
                format!(
                    "{:.0} B RSS and {:.0} B PSS per connection (RSS {} -> {}, after closing {})",
                    each(m0.rss_kb, mh.rss_kb),
                    each(m0.pss_kb, mh.pss_kb),
                    kb(m0.rss_kb),
                    kb(mh.rss_kb),
                    kb(m3.rss_kb)
                ),
            );
        }
        self.put_broker("", &a, &b, &subject, n as u64, "connection");
        Ok(())
    }

    // ---- persistent sessions ----

    fn offline(&mut self, away: &Away, qos: u8, inflight: Option<u64>, nt: u32, filter: &str) -> R<()> {
        let (n, back, k) = (away.sessions, away.drain, away.messages);
        let inflight = in_flight(inflight, qos, 256);
        let topics = topics(filter, None, 1, nt, false)?.remove(0);
        let mut specs: Vec<Spec> = (0..n)
            .map(|i| Spec {
                cid: format!("{}o{i}", self.prefix),
                clean: false,
                src: self.src(i, PER_ADDRESS),
                sub: Some(SubSpec {
                    filter: filter.into(),
                    qos,
                    pub_base: 0,
                    pub_count: 1,
                    quiet: i >= back,
                }),
                ..Default::default()
            })
            .collect();
        // The second warms up for the first, under the same name, so that a broker that deals its work out by names does the
        // same with both.
        for id in 0..2 {
            specs.push(Spec {
                cid: format!("{}op", self.prefix),
                clean: true,
                publ: Some(PubSpec { id, qos, retain: false, topics: topics.clone(), inflight }),
                ..Default::default()
            });
        }
        let payload = self.payload()?;
        let size = payload.mean_len();
        let e = self.start(self.config(payload, nt as u64)?, specs, None)?;
        e.cmd(Cmd::Nap(if qos == 0 { Nap::Bulk } else { Nap::Acked }));
        let subject = self.subject();
        if away.warm > 0 {
            self.connect(&e, n + 1, n + 2)?;
            self.publish_all(&e, n + 1, away.pace(), away.warm)?;
            e.disconnect(n + 1, n + 2, Duration::from_secs(10));
        }
        self.connect(&e, 0, n)?;
        if e.live().session_present > 0 {
            self.rep.warn("some sessions existed before: choose another --client-prefix");
        }
        self.subscribe(&e, 0, n)?;
        e.disconnect(0, n, Duration::from_secs(10));
        self.connect(&e, n, n + 1)?;
        if away.warm > 0 {
            // What is done once a second has been done.
            std::thread::sleep(Duration::from_millis(1500));
        }
        let m0 = subject.mem(true);
        let f0 = file_bytes(away.file.as_deref())?;
        let a = subject.sample()?;
        self.publish_all(&e, n, away.pace(), k)?;
        let b = subject.sample()?;
        let pub_s = (b.t - a.t) as f64 / 1e9;
        std::thread::sleep(Duration::from_millis(200));
        let m1 = subject.mem(true);
        let f1 = file_bytes(away.file.as_deref())?;
        let present = e.live().session_present;

        let c = subject.sample()?;
        let before = e.live();
        e.cmd(Cmd::Connect { from: 0, to: back, rate: 0.0, window: self.o.connect_window, only_dead: false });
        let (total, queued) = (back as u64 * k, n as u64 * k);
        let done = e.settle(
            secs(self.o.drain_idle.max(3.0)),
            secs(self.o.drain_max.max(60.0)),
            |l| l.unique + l.dup + l.connected,
            |l| l.unique >= total && l.connected >= before.connected + back as u64,
        )?;
        let l = e.live();
        let d = subject.sample()?;
        let drain = l.last_delivery.max(c.t + 1) - c.t;
        std::thread::sleep(Duration::from_millis(300));
        let m2 = subject.mem(true);
        let l2 = e.live();
        let sp = l2.session_present - present;
        // remove the sessions
        e.disconnect(0, back, Duration::from_secs(10));
        e.disconnect(n, n + 1, Duration::from_secs(10));
        e.cmd(Cmd::SetClean { from: 0, to: n, clean: true });
        self.connect(&e, 0, n)?;
        e.disconnect(0, n, Duration::from_secs(10));
        let o = e.finish();
        let y = tally(&o, false);

        let p = &mut self.rep;
        p.row(
            "offline",
            format!("{n} persistent sessions, {k} messages each, QoS {qos}, {size:.0} B; {back} drained"),
        );
        p.put(
            "params",
            json!({"sessions": n, "drain": back, "messages": k, "warm": away.warm, "qos": qos, "size": round(size, 1), "topics": nt, "inflight": inflight}),
        );
        p.put("publish_s", round(pub_s, 4));
        p.put("publish_per_s", round(k as f64 / pub_s, 1));
        p.put("queued_per_s", round(queued as f64 / pub_s, 1));
        p.row(
            "publish",
            format!(
                "{k} messages in {pub_s:.3} s: {:.0} per second, {:.0} queued per second",
                k as f64 / pub_s,
                queued as f64 / pub_s
            ),
        );
        if let (Some(m0), Some(m1), Some(m2)) = (m0, m1, m2) {
            let g = m1.rss_kb as f64 - m0.rss_kb as f64;
            p.put(
                "memory",
                json!({
                    "rss_before_kb": m0.rss_kb, "rss_queued_kb": m1.rss_kb, "rss_drained_kb": m2.rss_kb, "hwm_kb": m2.hwm_kb,
                    "rss_bytes_per_queued": round(g * 1024.0 / queued as f64, 1),
                }),
            );
            p.row(
                "memory",
                format!(
                    "RSS {} -> {} queued ({:.0} B per queued message) -> {} drained, peak {}",
                    kb(m0.rss_kb),
                    kb(m1.rss_kb),
                    g * 1024.0 / queued as f64,
                    kb(m2.rss_kb),
                    kb(m2.hwm_kb)
                ),
            );
        }
        if let (Some(f0), Some(f1)) = (f0, f1) {
            p.put("file", json!({"bytes_before": f0, "bytes_queued": f1}));
            p.row("file", format!("{} -> {} B while messages were published", group(f0), group(f1)));
        }
        p.put("sessions_present", sp);
        p.put("drained", done == Settled::Done);
        p.put("drain_s", round(drain as f64 / 1e9, 4));
        let rate = l.unique as f64 * 1e9 / drain as f64;
        p.put("drain_per_s", round(rate, 1));
        p.row(
            "drain",
            format!(
                "{} of {} in {}, {} per second",
                group(l.unique),
                group(total),
                t(drain),
                group(rate as u64)
            ),
        );
        if sp < back as u64 {
            p.warn(format!("only {sp} of {back} sessions were still there (session present)"));
        }
        self.put_tally(&y, &o.c);
        self.put_broker("publish", &a, &b, &subject, queued, "queued");
        self.put_broker("drain", &c, &d, &subject, l.unique, "delivery");
        Ok(())
    }

    // ---- reading a log from its beginning ----

    /// Publishes `k` messages that nobody listens to, then lets `n` readers have them all by
    /// `$replay/<from>/<filter>` at full speed. The topic is this run's own, so that what a log
    /// holds from other runs does not count.
    fn replay(&mut self, n: u32, k: u64, qos: u8, sub_qos: u8, inflight: Option<u64>, from: &str) -> R<()> {
        let inflight = in_flight(inflight, qos, 256);
        let base = format!("bench/replay/{}{:x}", self.prefix, self.magic & 0xffff);
        let filter = format!("$replay/{from}/{base}/#");
        let mut specs: Vec<Spec> = (0..n)
            .map(|i| Spec {
                cid: format!("{}r{i}", self.prefix),
                clean: true,
                src: self.src(i, PER_ADDRESS),
                sub: Some(SubSpec {
                    filter: filter.clone(),
                    qos: sub_qos,
                    pub_base: 0,
                    pub_count: 1,
                    quiet: false,
                }),
                ..Default::default()
            })
            .collect();
        specs.push(Spec {
            cid: format!("{}rp", self.prefix),
            clean: true,
            publ: Some(PubSpec {
                id: 0,
                qos,
                retain: false,
                topics: topics(&format!("{base}/#"), None, 1, 1, false)?.remove(0),
                inflight,
            }),
            ..Default::default()
        });
        let payload = self.payload()?;
        let size = payload.mean_len();
        let e = self.start(self.config(payload, 1)?, specs, None)?;
        e.cmd(Cmd::Nap(if sub_qos == 0 { Nap::Bulk } else { Nap::Acked }));
        let subject = self.subject();
        self.connect(&e, n, n + 1)?;
        let a = subject.sample()?;
        self.publish_all(&e, n, Pace::Max, k)?;
        let b = subject.sample()?;
        let pub_s = (b.t - a.t) as f64 / 1e9;

        self.connect(&e, 0, n)?;
        std::thread::sleep(Duration::from_millis(200));
        let m0 = subject.mem(true);
        if self.o.reset_peak {
            for &p in &self.o.broker_pid {
                sys::reset_peak(p).map_err(|e| Fail::new(1, format!("--reset-peak, process {p}: {e}")))?;
            }
        }
        let total = n as u64 * k;
        let c = subject.sample()?;
        e.cmd(Cmd::Subscribe { from: 0, to: n });
        let done = e.settle(
            secs(self.o.drain_idle.max(3.0)),
            secs(self.o.drain_max.max(120.0)),
            |l| l.unique + l.dup + l.subacked,
            |l| l.unique >= total,
        )?;
        let l = e.live();
        let d = subject.sample()?;
        let drain = l.last_delivery.max(c.t + 1) - c.t;
        std::thread::sleep(Duration::from_millis(300)); // late duplicates
        let m1 = subject.mem(true);
        e.check()?;
        e.disconnect(0, n + 1, Duration::from_secs(5));
        let o = e.finish();
        let y = tally(&o, false);

        let p = &mut self.rep;
        p.row(
            "replay",
            format!("{n} reader(s), {k} messages each, QoS {qos}/{sub_qos}, {size:.0} B, {filter}"),
        );
        p.put(
            "params",
            json!({"readers": n, "messages": k, "qos": qos, "sub_qos": sub_qos, "size": round(size, 1), "inflight": inflight, "filter": filter}),
        );
        p.put("publish_s", round(pub_s, 4));
        p.put("publish_per_s", round(k as f64 / pub_s, 1));
        p.row("publish", format!("{k} messages in {pub_s:.3} s: {:.0} per second", k as f64 / pub_s));
        p.put("drained", done == Settled::Done);
        p.put("drain_s", round(drain as f64 / 1e9, 4));
        let rate = l.unique as f64 * 1e9 / drain as f64;
        p.put("drain_per_s", round(rate, 1));
        p.row(
            "drain",
            format!(
                "{} of {} in {}, {} per second",
                group(l.unique),
                group(total),
                t(drain),
                group(rate as u64)
            ),
        );
        if let (Some(m0), Some(m1)) = (m0, m1) {
            p.put(
                "memory",
                json!({"rss_before_kb": m0.rss_kb, "rss_drained_kb": m1.rss_kb, "hwm_kb": m1.hwm_kb}),
            );
            p.row("memory", format!("RSS {} -> {}, peak {}", kb(m0.rss_kb), kb(m1.rss_kb), kb(m1.hwm_kb)));
        }
        self.put_tally(&y, &o.c);
        drain_warning(&mut self.rep, done, &self.o);
        self.put_broker("publish", &a, &b, &subject, k, "message");
        self.put_broker("drain", &c, &d, &subject, l.unique, "delivery");
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn slow(
        &mut self,
        ns_: u32,
        slow: u32,
        rate: f64,
        seconds: f64,
        qos: u8,
        inflight: Option<u64>,
        filter: &str,
        rcvbuf: u32,
    ) -> R<()> {
        let inflight = in_flight(inflight, qos, 1024);
        let topics = topics(filter, None, 1, 1, false)?.remove(0);
        let (lo, hi) = (ns_, ns_ + slow);
        let mut specs: Vec<Spec> = Vec::new();
        for i in 0..hi {
            let is = i >= lo;
            specs.push(Spec {
                cid: format!("{}{}{i}", self.prefix, if is { "z" } else { "s" }),
                clean: !(is && qos > 0),
                may_die: is,
                rcvbuf: if is { rcvbuf } else { 0 },
                src: self.src(i, PER_ADDRESS),
                sub: Some(SubSpec { filter: filter.into(), qos, pub_base: 0, pub_count: 1, quiet: is }),
                publ: None,
            });
        }
        specs.push(Spec {
            cid: format!("{}p", self.prefix),
            clean: true,
            publ: Some(PubSpec { id: 0, qos, retain: false, topics, inflight }),
            ..Default::default()
        });
        let payload = self.payload()?;
        let size = payload.mean_len();
        let cfg = self.config(payload, 1)?;
        let e = self.start(cfg, specs, None)?;
        let subject = self.subject();
        self.connect(&e, 0, hi)?;
        self.subscribe(&e, 0, hi)?;
        self.connect(&e, hi, hi + 1)?;
        let t0 = sys::now_ns() + 5_000_000;
        let w0 = t0 + ns(self.o.warmup);
        let w1 = w0 + ns(seconds);
        e.cmd(Cmd::Nap(Nap::Fixed));
        e.cmd(Cmd::Publish {
            from: hi,
            to: hi + 1,
            t0,
            w0,
            w1,
            stop_at: w1,
            pace: Pace::Rate(rate),
            count: u64::MAX,
        });
        // all have read until now
        e.sleep_until(w0, || {})?;
        e.cmd(Cmd::Pause { from: lo, to: hi });
        let m0 = subject.mem(false);
        let a = subject.sample()?;
        let mut peak = 0;
        e.sleep_until(w1, || peak = peak.max(subject.mem(false).map_or(0, |m| m.rss_kb)))?;
        let b = subject.sample()?;
        let m1 = subject.mem(false);
        sys::nap_ns(STOP_GRACE);
        e.cmd(Cmd::PubStop);
        std::thread::sleep(Duration::from_millis(20));
        e.settle(
            secs(self.o.drain_idle),
            secs(self.o.drain_max),
            |l| l.unique + l.dup + l.acked,
            |l| l.unique == l.sent * ns_ as u64 && (qos == 0 || l.acked == l.sent),
        )?;
        let hup = e.live().hup_paused;

        // the slow ones read again
        let before = e.live();
        let r0 = sys::now_ns();
        e.cmd(Cmd::Resume { from: lo, to: hi });
        let goal = before.sent * slow as u64;
        let all = |l: &Live| l.q_unique >= goal;
        e.settle(secs(self.o.drain_idle), secs(self.o.drain_max), |l| l.q_unique + l.died, all)?;
        let pongs = e.live().pongs;
        e.cmd(Cmd::Ping { from: lo, to: hi });
        let _ = e.wait(Duration::from_secs(3), "pings", |l| l.pongs - pongs + l.died >= slow as u64);
        e.check()?;
        let l1 = e.live();
        let dropped = l1.died;
        let mut present = None;
        if dropped > 0 && qos > 0 {
            let sp = e.live().session_present;
            let want = e.live().connected + dropped;
            e.cmd(Cmd::Connect {
                from: lo,
                to: hi,
                rate: 0.0,
                window: self.o.connect_window,
                only_dead: true,
            });
            e.wait(secs(self.o.connect_timeout), "reconnecting", |l| l.connected >= want)?;
            e.settle(secs(self.o.drain_idle), secs(self.o.drain_max), |l| l.q_unique, all)?;
            present = Some(e.live().session_present - sp);
        }
        let l2 = e.live();
        let catch_up = l2.last_delivery.saturating_sub(r0);
        std::thread::sleep(Duration::from_millis(200));
        let m2 = subject.mem(false);
        e.disconnect(0, hi + 1, Duration::from_secs(3));
        if qos > 0 {
            e.cmd(Cmd::SetClean { from: lo, to: hi, clean: true });
            self.connect(&e, lo, hi)?;
            e.disconnect(lo, hi, Duration::from_secs(3));
        }
        let o = e.finish();
        let y = tally(&o, false);
        let z = tally(&o, true);
        let c = o.c;
        let secs_w = (w1 - w0) as f64 / 1e9;
        let p = &mut self.rep;
        p.row(
            "slow",
            format!("{ns_} normal and {slow} stopped subscribers, {rate}/s, QoS {qos}, {size:.0} B"),
        );
        p.put(
            "params",
            json!({"subs": ns_, "slow": slow, "rate": rate, "seconds": seconds, "qos": qos, "size": round(size, 1), "slow_rcvbuf": rcvbuf, "inflight": inflight}),
        );
        let sent: u64 = o.pubs.iter().map(|x| x.sent).sum();
        p.put("sent", sent);
        p.put("not_sent", o.pubs[0].not_sent);
        p.put("late_sends", c.late_sends);
        p.put("max_lag_us", c.max_lag_ns / 1000);
        p.put("sent_per_s", round(c.win_sent as f64 / secs_w, 1));
        p.put("delivered_per_s", round(c.win_delivered as f64 / secs_w, 1));
        p.row(
            "published",
            format!(
                "{:.0} messages/s, {} in all, worst lag {}",
                c.win_sent as f64 / secs_w,
                group(sent),
                t(c.max_lag_ns)
            ),
        );
        p.row("delivered", format!("{:.0} per second to the normal ones", c.win_delivered as f64 / secs_w));
        p.latency("latency (normal)", "latency_us", &o.hist);
        if qos > 0 {
            p.latency("ack latency", "ack_latency_us", &o.ack_hist);
        }
        self.put_tally(&y, &c);
        let p = &mut self.rep;
        if let (Some(m0), Some(m1), Some(m2)) = (m0, m1, m2) {
            p.put(
                "memory",
                json!({"rss_before_kb": m0.rss_kb, "rss_end_kb": m1.rss_kb, "rss_peak_window_kb": peak, "rss_resumed_kb": m2.rss_kb, "hwm_kb": m2.hwm_kb}),
            );
            p.row(
                "memory",
                format!(
                    "RSS {} -> {} at the end of the load -> {} after resuming",
                    kb(m0.rss_kb),
                    kb(m1.rss_kb),
                    kb(m2.rss_kb)
                ),
            );
        }
        p.put(
            "slow",
            json!({
                "disconnected": dropped, "hangup_seen_while_stopped": hup, "sessions_present_after_reconnect": present,
                "expected": z.expected, "delivered": z.unique, "delivered_before_reconnect": l1.q_unique, "lost": z.lost, "dup": z.dup,
                "order_violations": z.order, "catch_up_s": round(catch_up as f64 / 1e9, 3),
            }),
        );
        p.row(
            "slow ones",
            format!(
                "{dropped} of {slow} disconnected; after reading again: {} of {} delivered in {}, lost {}, dup {}, order violations {}",
                group(z.unique),
                group(z.expected),
                t(catch_up),
                group(z.lost),
                group(z.dup),
                group(z.order)
            ),
        );
        self.put_broker("", &a, &b, &subject, c.win_delivered, "delivery");
        Ok(())
    }

    fn retained(
        &mut self,
        n: u32,
        subs: u32,
        qos: u8,
        inflight: Option<u64>,
        filter: &str,
        keep: bool,
    ) -> R<()> {
        let inflight = in_flight(inflight, qos, 256);
        let list: Vec<Box<[u8]>> =
            (0..n).map(|i| format!("bench/r/{}/{i}", i / 1000).into_bytes().into()).collect();
        for x in &list {
            if !codec::matches(filter, std::str::from_utf8(x).unwrap()) {
                return Err(Fail::new(1, "the filter must match bench/r/..."));
            }
        }
        let all = 1 + subs;
        let mut specs: Vec<Spec> = (0..all)
            .map(|i| Spec {
                cid: format!("{}s{i}", self.prefix),
                clean: true,
                src: self.src(i, PER_ADDRESS),
                sub: Some(SubSpec { filter: filter.into(), qos, pub_base: 0, pub_count: 1, quiet: false }),
                ..Default::default()
            })
            .collect();
        specs.push(Spec {
            cid: format!("{}p", self.prefix),
            clean: true,
            publ: Some(PubSpec { id: 0, qos, retain: true, topics: Arc::new(list), inflight }),
            ..Default::default()
        });
        let payload = self.payload()?;
        let size = payload.mean_len();
        let e = self.start(self.config(payload, n as u64)?, specs, None)?;
        e.cmd(Cmd::Nap(if qos == 0 { Nap::Bulk } else { Nap::Acked }));
        let subject = self.subject();
        self.connect(&e, all, all + 1)?;
        let m0 = subject.mem(true);
        let a = subject.sample()?;
        self.publish_all(&e, all, Pace::Max, n as u64)?;
        let b = subject.sample()?;
        let pub_s = (b.t - a.t) as f64 / 1e9;
        std::thread::sleep(Duration::from_millis(100));
        let m1 = subject.mem(true);

        // one subscriber
        self.connect(&e, 0, 1)?;
        let c = subject.sample()?;
        self.subscribe(&e, 0, 1)?;
        let ok1 = e.settle(
            secs(self.o.drain_idle.max(2.0)),
            Duration::from_secs(60),
            |l| l.unique + l.dup,
            |l| l.unique >= n as u64,
        )?;
        let d = subject.sample()?;
        let got1 = e.live().unique;
        // many at once
        let (mut g, mut ok2) = (None, Settled::Done);
        if subs > 0 {
            self.connect(&e, 1, all)?;
            let c2 = subject.sample()?;
            e.cmd(Cmd::Subscribe { from: 1, to: all });
            let goal = got1 + subs as u64 * n as u64;
            ok2 = e.settle(
                secs(self.o.drain_idle.max(2.0)),
                Duration::from_secs(60),
                |l| l.unique + l.dup,
                |l| l.unique >= goal,
            )?;
            g = Some((c2, subject.sample()?));
        }
        std::thread::sleep(Duration::from_millis(200));
        let l = e.live();
        let m2 = subject.mem(true);
        e.disconnect(0, all, Duration::from_secs(5));
        if !keep {
            e.cmd(Cmd::ClearRetained { from: all, to: all + 1 });
            self.ping(&e, all, all + 1)?;
        }
        e.disconnect(all, all + 1, Duration::from_secs(2));
        let o = e.finish();
        let y = tally(&o, false);
        let p = &mut self.rep;
        p.row(
            "retained",
            format!("{n} retained messages on distinct topics, QoS {qos}, {size:.0} B, filter {filter}"),
        );
        p.put("params", json!({"n": n, "subs": subs, "qos": qos, "size": round(size, 1), "filter": filter}));
        p.put("publish_s", round(pub_s, 4));
        p.put("publish_per_s", round(n as f64 / pub_s, 1));
        p.row("publish", format!("{n} in {pub_s:.3} s, {:.0} per second", n as f64 / pub_s));
        if let (Some(m0), Some(m1), Some(m2)) = (m0, m1, m2) {
            let per = (m1.rss_kb as f64 - m0.rss_kb as f64) * 1024.0 / n as f64;
            p.put(
                "memory",
                json!({"rss_before_kb": m0.rss_kb, "rss_stored_kb": m1.rss_kb, "rss_fetched_kb": m2.rss_kb, "hwm_kb": m2.hwm_kb, "rss_bytes_per_retained": round(per, 1)}),
            );
            p.row(
                "memory",
                format!(
                    "RSS {} -> {} ({per:.0} B per retained message), peak {}",
                    kb(m0.rss_kb),
                    kb(m1.rss_kb),
                    kb(m2.hwm_kb)
                ),
            );
        }
        let s0 = &o.subs[0];
        let one = s0.t_last.saturating_sub(s0.t_subscribe);
        p.put("one_subscriber", json!({"received": got1, "complete": ok1 == Settled::Done, "first_ms": round((s0.t_first.saturating_sub(s0.t_subscribe)) as f64 / 1e6, 3), "all_ms": round(one as f64 / 1e6, 3), "per_s": round(got1 as f64 * 1e9 / one.max(1) as f64, 0)}));
        p.row(
            "one subscriber",
            format!("{} in {}, {:.0} per second", group(got1), t(one), got1 as f64 * 1e9 / one.max(1) as f64),
        );
        if let Some((c2, d2)) = g {
            let mut h: Histogram<u64> = new_hist();
            let (mut from, mut to) = (u64::MAX, 0);
            for s in &o.subs[1..] {
                h.saturating_record(s.t_last.saturating_sub(s.t_subscribe).max(1));
                from = from.min(s.t_subscribe);
                to = to.max(s.t_last);
            }
            let got = l.unique - got1;
            let took = to.saturating_sub(from).max(1);
            p.put("many_subscribers", json!({"subs": subs, "received": got, "complete": ok2 == Settled::Done, "all_ms": round(took as f64 / 1e6, 3), "per_s": round(got as f64 * 1e9 / took as f64, 0)}));
            p.row(
                "many subscribers",
                format!(
                    "{subs}: {} in {}, {:.0} per second",
                    group(got),
                    t(took),
                    got as f64 * 1e9 / took as f64
                ),
            );
            p.latency("time to have all", "many_complete_us", &h);
            self.put_tally(&y, &o.c);
            self.put_broker("publish", &a, &b, &subject, n as u64, "message");
            self.put_broker("one", &c, &d, &subject, got1, "delivery");
            self.put_broker("many", &c2, &d2, &subject, got, "delivery");
        } else {
            self.put_tally(&y, &o.c);
            self.put_broker("publish", &a, &b, &subject, n as u64, "message");
            self.put_broker("one", &c, &d, &subject, got1, "delivery");
        }
        if o.c.retain_flag < y.unique {
            self.rep.warn(format!(
                "{} of the messages came without the RETAIN flag",
                group(y.unique - o.c.retain_flag)
            ));
        }
        Ok(())
    }

    // ---- durability ----

    fn durable(&mut self, inflight: Option<u64>, seconds: f64, rate: Rate, qos: u8, ledger: &str) -> R<()> {
        let inflight = in_flight(inflight, qos, 100);
        let cid = format!("{}d", self.prefix);
        let topic = "bench/durable";
        let head = json!({
            "mqload_ledger": 1, "magic": self.magic, "client_id": cid, "topic": topic, "qos": qos, "v5": self.o.v5,
            "size": self.o.size, "payload_file": self.o.payload_file, "session_expiry": self.o.session_expiry,
        });
        std::fs::write(ledger, format!("{head}\n")).map_err(|e| Fail::new(1, format!("{ledger}: {e}")))?;
        let specs = vec![
            Spec {
                cid,
                clean: true,
                sub: Some(SubSpec { filter: topic.into(), qos, pub_base: 0, pub_count: 1, quiet: false }),
                ..Default::default()
            },
            Spec {
                cid: format!("{}p", self.prefix),
                clean: true,
                may_die: true,
                publ: Some(PubSpec {
                    id: 0,
                    qos,
                    retain: false,
                    topics: Arc::new(vec![topic.as_bytes().to_vec().into()]),
                    inflight,
                }),
                ..Default::default()
            },
        ];
        let mut cfg = self.config(self.payload()?, 1)?;
        cfg.ledger = Some(ledger.into());
        let e = self.start(cfg, specs, None)?;
        // a fresh session: wipe, then subscribe in a persistent one and leave
        self.connect(&e, 0, 1)?;
        e.disconnect(0, 1, Duration::from_secs(5));
        e.cmd(Cmd::SetClean { from: 0, to: 1, clean: false });
        self.connect(&e, 0, 1)?;
        self.subscribe(&e, 0, 1)?;
        e.disconnect(0, 1, Duration::from_secs(5));
        self.connect(&e, 1, 2)?;
        let t0 = sys::now_ns();
        let end = t0 + ns(seconds);
        let pace = match rate {
            Rate::Max => Pace::Max,
            Rate::PerSec(r) => Pace::Rate(r),
        };
        e.cmd(Cmd::Publish { from: 1, to: 2, t0, w0: t0, w1: end, stop_at: end, pace, count: u64::MAX });
        loop {
            e.check()?;
            if e.live().died > 0 || sys::now_ns() >= end {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = (sys::now_ns() - t0) as f64 / 1e9;
        e.cmd(Cmd::PubStop);
        std::thread::sleep(Duration::from_millis(20));
        e.settle(
            secs(self.o.drain_idle),
            secs(self.o.drain_max),
            |l| l.acked,
            |l| l.died > 0 || l.acked == l.sent,
        )?;
        let died = e.live().died > 0;
        if !died {
            e.disconnect(1, 2, Duration::from_secs(2));
        }
        let o = e.finish();
        let p0 = &o.pubs[0];
        let mut f = std::fs::File::options().append(true).open(ledger)?;
        writeln!(f, "# sent {}", p0.sent)?;
        let p = &mut self.rep;
        p.row("durable", format!("QoS {qos} publisher, at most {inflight} in flight, ledger {ledger}"));
        p.put("params", json!({"inflight": inflight, "seconds": seconds, "qos": qos, "ledger": ledger}));
        p.put("ran_s", round(took, 3));
        p.put("sent", p0.sent);
        p.put("acked", p0.acked);
        p.put("acked_per_s", round(p0.acked as f64 / took, 1));
        p.put("publisher_died", p0.died.clone());
        p.row(
            "published",
            format!(
                "{} sent, {} acknowledged in {took:.2} s ({:.0} per second)",
                group(p0.sent),
                group(p0.acked),
                p0.acked as f64 / took
            ),
        );
        p.row(
            "connection",
            match &p0.died {
                Some(w) => format!("ended by the other side: {w}"),
                None => "alive to the end".into(),
            },
        );
        p.latency("ack latency", "ack_latency_us", &o.ack_hist);
        Ok(())
    }

    fn durable_check(&mut self, ledger: &str, keep: bool) -> R<()> {
        let text = std::fs::read_to_string(ledger).map_err(|e| Fail::new(1, format!("{ledger}: {e}")))?;
        let mut lines = text.lines();
        let h: Value = serde_json::from_str(lines.next().unwrap_or(""))
            .map_err(|e| Fail::new(1, format!("{ledger}: {e}")))?;
        if h["mqload_ledger"] != 1 {
            return Err(Fail::new(1, format!("{ledger} is not a ledger")));
        }
        let mut acked: Vec<u64> = Vec::new();
        let mut sent = None;
        for l in lines {
            if let Some(n) = l.strip_prefix("# sent ") {
                sent = n.parse::<u64>().ok();
            } else if let Ok(n) = l.parse() {
                acked.push(n);
            }
        }
        let bad = || Fail::new(1, format!("{ledger}: incomplete first line"));
        self.magic = h["magic"].as_u64().ok_or_else(bad)? as u32;
        self.o.v5 = h["v5"].as_bool().ok_or_else(bad)?;
        self.rep.put("mqtt", if self.o.v5 { "5.0" } else { "3.1.1" });
        self.o.session_expiry = h["session_expiry"].as_u64().unwrap_or(3600) as u32;
        let qos = h["qos"].as_u64().ok_or_else(bad)? as u8;
        let pl = payload(h["size"].as_u64().ok_or_else(bad)? as usize, h["payload_file"].as_str())?;
        // the broker may still be starting
        let t = Instant::now();
        loop {
            match std::net::TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)) {
                Ok(_) => break,
                Err(e) if t.elapsed() > secs(self.o.connect_timeout) => {
                    return Err(Fail::new(REFUSED, format!("cannot connect to {}: {e}", self.addr)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        let specs = vec![Spec {
            cid: h["client_id"].as_str().ok_or_else(bad)?.into(),
            clean: false,
            sub: Some(SubSpec {
                filter: h["topic"].as_str().ok_or_else(bad)?.into(),
                qos,
                pub_base: 0,
                pub_count: 1,
                quiet: false,
            }),
            ..Default::default()
        }];
        let e = self.start(self.config(pl, 1)?, specs, None)?;
        let t0 = sys::now_ns();
        self.connect(&e, 0, 1)?;
        let present = e.live().session_present > 0;
        e.settle(
            secs(self.o.drain_idle.max(2.0)),
            Duration::from_secs(60),
            |l| l.unique + l.dup,
            |l| sent == Some(l.unique),
        )?;
        std::thread::sleep(Duration::from_millis(200));
        let l = e.live();
        e.disconnect(0, 1, Duration::from_secs(2));
        if !keep {
            e.cmd(Cmd::SetClean { from: 0, to: 1, clean: true });
            self.connect(&e, 0, 1)?;
            e.disconnect(0, 1, Duration::from_secs(2));
        }
        let o = e.finish();
        let tr = &o.subs[0].trackers[0];
        let lost: Vec<u64> = acked.iter().copied().filter(|&s| !tr.has(s)).collect();
        let got_acked = acked.len() - lost.len();
        let cold = tr.cold.clone().unwrap_or_default();
        let p = &mut self.rep;
        p.row(
            "durable-check",
            format!(
                "ledger {ledger}: {} acknowledged{}",
                group(acked.len() as u64),
                sent.map_or(String::new(), |s| format!(", {} sent", group(s)))
            ),
        );
        p.put("session_present", present);
        p.put("sent", sent);
        p.put("acked", acked.len());
        p.put("delivered", tr.unique);
        p.put("acked_lost", lost.len());
        p.put("first_lost", lost.first().copied());
        p.put("last_lost", lost.last().copied());
        p.put("delivered_not_acked", tr.unique - got_acked as u64);
        p.put("dup", cold.dup);
        p.put("order_violations", cold.order);
        p.put("corrupt", o.c.corrupt);
        p.put("foreign", o.c.foreign);
        p.put("drain_s", round(l.last_delivery.saturating_sub(t0) as f64 / 1e9, 3));
        p.row("session", if present { "present" } else { "GONE" });
        p.row(
            "delivered",
            format!(
                "{} ({} of them never acknowledged), dup {}, order violations {}",
                group(tr.unique),
                tr.unique - got_acked as u64,
                cold.dup,
                cold.order
            ),
        );
        p.row(
            "acked but lost",
            match (lost.first(), lost.last()) {
                (Some(a), Some(b)) => format!("{} (sequences {a} to {b})", group(lost.len() as u64)),
                _ => "0".into(),
            },
        );
        Ok(())
    }
}

fn drain_warning(r: &mut Report, s: Settled, o: &Common) {
    match s {
        Settled::Done => {}
        Settled::Idle => {
            r.warn(format!("not everything arrived: nothing more came for {} s after the end", o.drain_idle))
        }
        Settled::Max => r.warn(format!(
            "messages were still arriving {} s after the end: what was left in the broker counts as lost",
            o.drain_max
        )),
    }
}

/// Brokers hang up on a 3.1.1 client with too many unfinished QoS 2 messages; 20 is a usual limit.
fn file_bytes(path: Option<&Path>) -> R<Option<u64>> {
    let Some(path) = path else { return Ok(None) };
    let meta =
        std::fs::metadata(path).map_err(|e| Fail::new(1, format!("--watch-file {}: {e}", path.display())))?;
    Ok(Some(meta.len()))
}

fn in_flight(asked: Option<u64>, qos: u8, default: u64) -> u64 {
    asked.unwrap_or(if qos == 2 { default.min(20) } else { default })
}

fn payload(size: usize, file: Option<&str>) -> R<Payload> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| Fail::new(1, format!("{path}: {e}")))?;
        let bodies: Vec<Vec<u8>> =
            text.lines().filter(|l| !l.is_empty()).map(|l| l.as_bytes().to_vec()).collect();
        if bodies.is_empty() {
            return Err(Fail::new(1, format!("{path}: no lines")));
        }
        return Ok(Payload { hex: true, bodies });
    }
    // printable and not compressible to nothing, the same in every run
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let filler = (HEADER..size)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(x >> 32) as usize & 63]
        })
        .collect();
    Ok(Payload { hex: false, bodies: vec![filler] })
}

/// The topics of each publisher: from a pattern, or made to match the filter.
fn topics(filter: &str, pattern: Option<&str>, pubs: u32, n: u32, per_pub: bool) -> R<Vec<Topics>> {
    let pat = match pattern {
        Some(p) => p.to_string(),
        None => {
            let base = match filter.strip_suffix("/#") {
                Some(b) => b,
                None if filter == "#" => "bench",
                None => filter,
            };
            if base.contains(['#', '+']) {
                return Err(Fail::new(1, "give --topic for a filter with wildcards in the middle"));
            }
            if base == filter {
                base.to_string()
            } else if per_pub {
                format!("{base}/p{{p}}/t{{t}}")
            } else {
                format!("{base}/t{{t}}")
            }
        }
    };
    if n == 0 || (n > 1 && !pat.contains("{t}")) {
        return Err(Fail::new(1, "several topics need a filter with a wildcard, or a --topic with {t}"));
    }
    let mut v = Vec::new();
    for p in 0..pubs {
        let mut l: Vec<Box<[u8]>> = Vec::new();
        for t in 0..n {
            let x = pat.replace("{p}", &p.to_string()).replace("{t}", &t.to_string());
            if !codec::matches(filter, &x) {
                return Err(Fail::new(1, format!("topic {x} does not match filter {filter}")));
            }
            l.push(x.into_bytes().into());
        }
        v.push(Arc::new(l));
    }
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_making() {
        let one = |f: &str, p: Option<&str>, n, per| {
            topics(f, p, 2, n, per).map(|v| String::from_utf8(v[1].last().unwrap().to_vec()).unwrap())
        };
        assert_eq!(one("bench/#", None, 3, false).unwrap(), "bench/t2");
        assert_eq!(one("#", None, 2, true).unwrap(), "bench/p1/t1");
        assert_eq!(one("a/b", None, 1, false).unwrap(), "a/b");
        assert!(one("a/b", None, 2, false).is_err());
        assert!(one("a/+/b", None, 1, false).is_err());
        assert_eq!(one("a/+/b", Some("a/{t}{p}/b"), 2, false).unwrap(), "a/11/b");
        assert!(one("a/+/b", Some("x/{t}"), 1, false).is_err());
    }
}
