//! The client engine: worker threads, each with an epoll loop over its share of
//! the clients, driven by commands from a controller (the scenario).

use crate::codec::{self, ConnectOpts};
use crate::sys::{self, Epoll, Event};
use crate::track::{PubWindow, Seen, Tracker};
use crate::ws;
use hdrhistogram::Histogram;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const HEADER: usize = 24;
const EV_WAKE: u64 = u64::MAX;
/// A publisher generates no more while this much is unsent in user space.
const HIGH_WATER: usize = 256 * 1024;
/// How long after the end messages that were due before it may be sent.
pub const STOP_GRACE: u64 = 20_000_000;
/// Behind schedule by more than this, a message carries its scheduled time as
/// its stamp, so that back-pressure counts as latency (no coordinated omission).
const LAG_TOLERANCE: u64 = 2_000_000;

// ---------------------------------------------------------------- description

#[derive(Debug, Clone)]
pub struct Fail {
    pub code: i32,
    pub msg: String,
}

pub const REFUSED: i32 = 3;
pub const DIED: i32 = 4;
pub const TIMEOUT: i32 = 5;

impl Fail {
    pub fn new(code: i32, msg: impl Into<String>) -> Self {
        Fail { code, msg: msg.into() }
    }
}

impl From<String> for Fail {
    fn from(s: String) -> Self {
        Fail::new(1, s)
    }
}

impl From<io::Error> for Fail {
    fn from(e: io::Error) -> Self {
        Fail::new(1, e.to_string())
    }
}

pub struct Net {
    pub addr: SocketAddr,
    pub host: String,
    pub v5: bool,
    pub keepalive: u16,
    pub username: Option<String>,
    pub password: Option<String>,
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub ws: Option<String>,
    pub receive_max: u16,
}

pub struct Payload {
    pub hex: bool,
    /// What follows the header; the message with sequence s carries number s mod len.
    pub bodies: Vec<Vec<u8>>,
}

impl Payload {
    pub fn header_len(&self) -> usize {
        if self.hex { 2 * HEADER } else { HEADER }
    }
    pub fn max_len(&self) -> usize {
        self.header_len() + self.bodies.iter().map(|b| b.len()).max().unwrap_or(0)
    }
    pub fn mean_len(&self) -> f64 {
        self.header_len() as f64
            + self.bodies.iter().map(|b| b.len()).sum::<usize>() as f64 / self.bodies.len() as f64
    }
}

pub type Topics = Arc<Vec<Box<[u8]>>>;

pub struct PubSpec {
    pub id: u32,
    pub qos: u8,
    pub retain: bool,
    pub topics: Topics,
    pub inflight: u64,
}

pub struct SubSpec {
    pub filter: String,
    pub qos: u8,
    pub pub_base: u32,
    pub pub_count: u32,
    /// Kept out of the latency and rate figures (the slow ones of `slow`).
    pub quiet: bool,
}

#[derive(Default)]
pub struct Spec {
    pub cid: String,
    pub clean: bool,
    pub src: Option<Ipv4Addr>,
    pub rcvbuf: u32,
    pub may_die: bool,
    pub sub: Option<SubSpec>,
    pub publ: Option<PubSpec>,
}

#[derive(Clone, Copy)]
pub enum Pace {
    /// As fast as windows and back-pressure allow.
    Max,
    /// Messages per second in all, spread evenly over the publishers in time.
    Rate(f64),
}

/// When the worker may sleep a little between rounds, so that small reads coalesce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nap {
    Off,
    /// With a rate: only where asked for.
    Fixed,
    /// QoS 0 at full speed: a tenth of the present latency, at most 3 ms.
    Bulk,
    /// With acknowledgements at full speed: at most 1 ms, a fiftieth of the present latency, and
    /// the time of 4 messages of one subscriber (so that a broker's in-flight window of the usual
    /// 20 never runs empty because of it).
    Acked,
}

#[derive(Clone)]
pub enum Cmd {
    Connect {
        from: u32,
        to: u32,
        rate: f64,
        window: u32,
        only_dead: bool,
    },
    Subscribe {
        from: u32,
        to: u32,
    },
    Ping {
        from: u32,
        to: u32,
    },
    /// Publishes an empty retained message on each topic of these publishers.
    ClearRetained {
        from: u32,
        to: u32,
    },
    Publish {
        from: u32,
        to: u32,
        t0: u64,
        w0: u64,
        w1: u64,
        stop_at: u64,
        pace: Pace,
        count: u64,
    },
    PubStop,
    Pause {
        from: u32,
        to: u32,
    },
    Resume {
        from: u32,
        to: u32,
    },
    SetClean {
        from: u32,
        to: u32,
        clean: bool,
    },
    Nap(Nap),
    /// Sends DISCONNECT and waits for the broker to close.
    Disconnect {
        from: u32,
        to: u32,
    },
    Quit,
}

pub struct Config {
    pub net: Net,
    pub magic: u32,
    pub payload: Payload,
    /// Topics per publisher: for the per-topic order check.
    pub topics: u64,
    pub threads: usize,
    /// `None`: automatic.
    pub nap_ns: Option<u64>,
    pub kernel_stamps: bool,
    pub tick_ns: u64,
    pub stall_ns: u64,
    pub ledger: Option<String>,
    pub session_expiry: u32,
}

pub struct Inbox {
    cmds: Mutex<Vec<Cmd>>,
    ready: Mutex<Vec<u32>>,
    efd: RawFd,
}

macro_rules! stats {
    ($($f:ident),*) => {
        /// Counters that a worker publishes once per loop for the controller to watch.
        #[derive(Default)]
        pub struct Stats { $(pub $f: AtomicU64),* }
        #[derive(Default, Clone, Copy, Debug)]
        pub struct Live { $(pub $f: u64),* }
        impl Stats {
            #[inline]
            fn publish(&self, l: &Live) { $(self.$f.store(l.$f, Relaxed);)* }
            fn add_to(&self, l: &mut Live) { $(l.$f += self.$f.load(Relaxed);)* }
        }
    }
}
stats!(
    connected,
    session_present,
    subacked,
    pongs,
    closed,
    died,
    sent,
    acked,
    unique,
    q_unique,
    dup,
    pub_done,
    last_delivery,
    last_connack,
    hup_paused
);

pub struct Shared {
    pub cfg: Config,
    pub inboxes: Vec<Inbox>,
    pub stats: Vec<Stats>,
    /// By publisher id; empty where not in closed-loop mode.
    pub windows: Vec<PubWindow>,
    failed: AtomicBool,
    fail: Mutex<Option<Fail>>,
}

// -------------------------------------------------------------------- results

pub fn new_hist() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).unwrap()
}

#[derive(Default, Clone, Copy, Debug)]
pub struct Counters {
    pub win_delivered: u64,
    pub win_bytes: u64,
    pub win_sent: u64,
    pub win_acked: u64,
    pub delivered: u64,
    pub foreign: u64,
    pub unexpected: u64,
    pub corrupt: u64,
    pub retransmit: u64,
    pub retain_flag: u64,
    pub rejected: u64,
    pub bad_ack: u64,
    pub downgraded: u64,
    pub late_sends: u64,
    pub max_lag_ns: u64,
    pub reads: u64,
    pub loops: u64,
    pub naps: u64,
}

impl Counters {
    fn add(&mut self, o: &Counters) {
        self.win_delivered += o.win_delivered;
        self.win_bytes += o.win_bytes;
        self.win_sent += o.win_sent;
        self.win_acked += o.win_acked;
        self.delivered += o.delivered;
        self.foreign += o.foreign;
        self.unexpected += o.unexpected;
        self.corrupt += o.corrupt;
        self.retransmit += o.retransmit;
        self.retain_flag += o.retain_flag;
        self.rejected += o.rejected;
        self.bad_ack += o.bad_ack;
        self.downgraded += o.downgraded;
        self.late_sends += o.late_sends;
        self.max_lag_ns = self.max_lag_ns.max(o.max_lag_ns);
        self.reads += o.reads;
        self.loops += o.loops;
        self.naps += o.naps;
    }
}

pub struct SubOut {
    pub gid: u32,
    pub trackers: Vec<Tracker>,
    pub pub_base: u32,
    pub quiet: bool,
    pub win_delivered: u64,
    pub t_subscribe: u64,
    pub t_first: u64,
    pub t_last: u64,
}

pub struct PubOut {
    pub id: u32,
    pub sent: u64,
    pub acked: u64,
    pub offered: u64,
    pub not_sent: u64,
    pub stalls: u64,
    pub stalled_msgs: u64,
    pub unflushed: u64,
    pub died: Option<String>,
}

pub struct WorkerOut {
    pub c: Counters,
    pub hist: Histogram<u64>,
    pub ack_hist: Histogram<u64>,
    pub conn_hist: Histogram<u64>,
    pub per_sec: Vec<u64>,
    pub subs: Vec<SubOut>,
    pub pubs: Vec<PubOut>,
}

// --------------------------------------------------------------------- client

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum St {
    Idle,
    TcpWait,
    WsWait,
    ConnackWait,
    Up,
    Closing,
    Closed,
    Dead,
}

struct SubState {
    trackers: Vec<Tracker>,
    pub_base: u32,
    quiet: bool,
    win: u64,
    t_subscribe: u64,
    t_first: u64,
    t_last: u64,
    /// QoS 2 packet ids received and not yet released.
    q2: Option<Box<[u64; 1024]>>,
}

impl SubState {
    /// False where the id is already in use: a retransmission.
    fn q2_insert(&mut self, pid: u16) -> bool {
        let b = self.q2.get_or_insert_with(|| Box::new([0; 1024]));
        let w = &mut b[(pid >> 6) as usize];
        let bit = 1u64 << (pid & 63);
        let new = *w & bit == 0;
        *w |= bit;
        new
    }
    fn q2_remove(&mut self, pid: u16) {
        if let Some(b) = &mut self.q2 {
            b[(pid >> 6) as usize] &= !(1u64 << (pid & 63));
        }
    }
}

struct PubState {
    id: u32,
    qos: u8,
    retain: bool,
    topics: Topics,
    active: bool,
    rate: bool,
    seq: u64,
    limit: u64,
    /// Send times of what is in flight, by seq & mask; 0 = acknowledged.
    ring: Vec<u64>,
    ack_base: u64,
    acked: u64,
    inflight: u64,
    offered: u64,
    not_sent: u64,
    backlog: VecDeque<u64>,
    blocked_since: u64,
    blocked_base: u64,
    forced_base: u64,
    stalls: u64,
    stalled_msgs: u64,
    done: bool,
}

struct Client {
    fd: RawFd,
    generation: u32,
    st: St,
    paused: bool,
    mask: u32,
    t_connect: u64,
    carry: Vec<u8>,
    out: Vec<u8>,
    out_pos: usize,
    tls: Option<Box<ClientConnection>>,
    wsd: Option<Box<ws::Decoder>>,
    sub: Option<Box<SubState>>,
    publ: Option<Box<PubState>>,
    spec: Spec,
    died: Option<String>,
    hup_paused: bool,
    stamped: bool,
}

enum Death {
    Eof,
    Io(io::Error),
    Proto(String),
    Refused(String),
}

impl From<&'static str> for Death {
    fn from(s: &'static str) -> Self {
        Death::Proto(s.into())
    }
}

struct Pacer {
    t0: u64,
    k: u64,
    n: u64,
    per_ns: f64,
    pubs: Vec<u32>,
    last: u64,
}

impl Pacer {
    fn due(&self) -> u64 {
        self.t0 + (self.k as f64 * self.per_ns) as u64
    }
}

// --------------------------------------------------------------------- worker

struct Ctx {
    wid: usize,
    sh: Arc<Shared>,
    ep: Epoll,
    v5: bool,
    plain: bool,
    hex: bool,
    magic: u32,
    topics: u64,
    closed: bool,
    shift: u32,
    burst: u64,
    w0: u64,
    w1: u64,
    stop_at: u64,
    rbuf: Vec<u8>,
    plain_in: Vec<u8>,
    mqtt_in: Vec<u8>,
    stage: Vec<u8>,
    acks: Vec<u8>,
    enc1: Vec<u8>,
    enc2: Vec<u8>,
    rng: u32,
    ready: Vec<u32>,
    ready_flag: Vec<bool>,
    live: Live,
    c: Counters,
    hist: Histogram<u64>,
    ack_hist: Histogram<u64>,
    conn_hist: Histogram<u64>,
    per_sec: Vec<u64>,
    ledger: Option<BufWriter<File>>,
    in_progress: u32,
    loop_bytes: usize,
    /// The last read filled the buffer.
    more: bool,
    /// Least latency seen in this round.
    loop_lat: u64,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    real_off: u64,
}

struct Worker {
    x: Ctx,
    cl: Vec<Client>,
    threads: usize,
    pacer: Option<Pacer>,
    connq: VecDeque<u32>,
    conn_window: u32,
    conn_gap: f64,
    conn_due: f64,
    nap: Nap,
    last_house: u64,
    last_delivered: u64,
    /// Ns in which a subscriber here gets four messages.
    four_msgs: u64,
    nsubs: u64,
}

impl Ctx {
    #[inline]
    fn mark_ready(&mut self, li: u32) {
        let f = &mut self.ready_flag[li as usize];
        if !*f {
            *f = true;
            self.ready.push(li);
        }
    }

    fn arm(&self, c: &mut Client, li: u32) {
        let want = if c.paused { 0 } else { sys::IN }
            | if c.out_pos < c.out.len() { sys::OUT } else { 0 }
            | sys::RDHUP
            | sys::ET;
        if want != c.mask && c.fd >= 0 && c.mask != 0 {
            c.mask = want;
            let _ = self.ep.modify(c.fd, want, token(li, c.generation));
        }
    }

    /// Bytes as they go to the kernel: at once where nothing is pending, else queued.
    fn raw_send(&mut self, c: &mut Client, li: u32, mut b: &[u8]) -> Result<(), Death> {
        if c.out_pos == c.out.len() {
            while !b.is_empty() {
                match sys::send(c.fd, b) {
                    Ok(n) => b = &b[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Death::Io(e)),
                }
            }
            if b.is_empty() {
                return Ok(());
            }
            c.out.clear();
            c.out_pos = 0;
        }
        c.out.extend_from_slice(b);
        self.arm(c, li);
        Ok(())
    }

    fn flush(&mut self, c: &mut Client, li: u32) -> Result<(), Death> {
        while c.out_pos < c.out.len() {
            match sys::send(c.fd, &c.out[c.out_pos..]) {
                Ok(n) => c.out_pos += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Death::Io(e)),
            }
        }
        if c.out_pos == c.out.len() {
            c.out.clear();
            c.out_pos = 0;
            if c.out.capacity() > 1 << 20 {
                c.out = Vec::new();
            }
        }
        self.arm(c, li);
        Ok(())
    }

    /// MQTT bytes through the transport.
    #[inline]
    fn send(&mut self, c: &mut Client, li: u32, b: &[u8]) -> Result<(), Death> {
        if self.plain {
            return self.raw_send(c, li, b);
        }
        self.send_layered(c, li, b, 2)
    }

    fn send_layered(&mut self, c: &mut Client, li: u32, b: &[u8], opcode: u8) -> Result<(), Death> {
        let mut enc = mem::take(&mut self.enc1);
        enc.clear();
        let data: &[u8] = if c.wsd.is_some() {
            self.rng ^= self.rng << 13;
            self.rng ^= self.rng >> 17;
            self.rng ^= self.rng << 5;
            ws::encode(&mut enc, opcode, b, self.rng);
            &enc
        } else {
            b
        };
        let r = self.send_tls(c, li, data);
        self.enc1 = enc;
        r
    }

    /// Bytes below the WebSocket layer.
    fn send_tls(&mut self, c: &mut Client, li: u32, data: &[u8]) -> Result<(), Death> {
        let Some(t) = c.tls.as_mut() else { return self.raw_send(c, li, data) };
        t.writer().write_all(data).map_err(Death::Io)?;
        self.pump_tls(c, li)
    }

    fn pump_tls(&mut self, c: &mut Client, li: u32) -> Result<(), Death> {
        let mut enc = mem::take(&mut self.enc2);
        enc.clear();
        if let Some(t) = c.tls.as_mut() {
            while t.wants_write() {
                if let Err(e) = t.write_tls(&mut enc) {
                    self.enc2 = enc;
                    return Err(Death::Io(e));
                }
            }
        }
        let r = if enc.is_empty() { Ok(()) } else { self.raw_send(c, li, &enc) };
        self.enc2 = enc;
        r
    }

    fn send_connect(&mut self, c: &mut Client, li: u32) -> Result<(), Death> {
        let sh = self.sh.clone();
        let n = &sh.cfg.net;
        let mut b = Vec::with_capacity(64);
        codec::connect(
            &mut b,
            &ConnectOpts {
                v5: n.v5,
                client_id: &c.spec.cid,
                clean: c.spec.clean,
                keepalive: n.keepalive,
                username: n.username.as_deref(),
                password: n.password.as_deref(),
                session_expiry: if c.spec.clean { 0 } else { sh.cfg.session_expiry },
                receive_max: n.receive_max,
            },
        );
        c.st = St::ConnackWait;
        self.send(c, li, &b)
    }

    /// The TCP connection is there.
    fn on_tcp(&mut self, c: &mut Client, li: u32) -> Result<(), Death> {
        let e = sys::so_error(c.fd);
        if e != 0 {
            return Err(Death::Io(io::Error::from_raw_os_error(e)));
        }
        let sh = self.sh.clone();
        let n = &sh.cfg.net;
        if let Some((cfg, name)) = &n.tls {
            let mut t =
                ClientConnection::new(cfg.clone(), name.clone()).map_err(|e| Death::Proto(e.to_string()))?;
            t.set_buffer_limit(None);
            c.tls = Some(Box::new(t));
        }
        c.st = St::WsWait;
        c.stamped = sh.cfg.kernel_stamps && sys::want_stamps(c.fd);
        self.arm(c, li);
        if let Some(path) = &n.ws {
            let req = ws::request(&n.host, n.addr.port(), path);
            return self.send_tls(c, li, &req);
        }
        self.send_connect(c, li)
    }

    fn on_readable(&mut self, c: &mut Client, li: u32, hangup: bool) -> Result<(), Death> {
        let mut buf = mem::take(&mut self.rbuf);
        self.more = false;
        let r = self.read_some(c, li, &mut buf);
        self.rbuf = buf;
        if self.more || (hangup && r.is_ok()) {
            // fair: come back to it in the next round
            let _ = self.ep.modify(c.fd, c.mask, token(li, c.generation));
        }
        let r = r.and_then(|()| if self.acks.is_empty() { Ok(()) } else { self.send_acks(c, li) });
        self.acks.clear();
        r
    }

    fn send_acks(&mut self, c: &mut Client, li: u32) -> Result<(), Death> {
        let a = mem::take(&mut self.acks);
        let r = self.send(c, li, &a);
        self.acks = a;
        r
    }

    fn read_some(&mut self, c: &mut Client, li: u32, buf: &mut Vec<u8>) -> Result<(), Death> {
        self.c.reads += 1;
        let k = if self.plain { c.carry.len() } else { 0 };
        if k > 0 {
            let need = codec::needed(&c.carry).unwrap_or(0).max(k) + 65536;
            if buf.len() < need {
                buf.resize(need, 0);
            }
            buf[..k].copy_from_slice(&c.carry);
        }
        let got = if c.stamped {
            sys::recv_stamped(c.fd, &mut buf[k..])
        } else {
            sys::recv(c.fd, &mut buf[k..]).map(|n| (n, 0))
        };
        let (n, stamp) = match got {
            Ok((0, _)) => return Err(Death::Eof),
            Ok(x) => x,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {
                return Ok(());
            }
            Err(e) => return Err(Death::Io(e)),
        };
        // edge-triggered: a short read has emptied the socket, a full one may not have
        self.more = n == buf.len() - k;
        self.loop_bytes += n;
        let mut now = sys::now_ns();
        if stamp > 0 {
            now = now.min(stamp.wrapping_sub(self.real_off));
        }
        if self.plain {
            let all = &buf[..k + n];
            let used = self.process(c, li, all, now)?;
            c.carry.clear();
            if used < all.len() {
                c.carry.extend_from_slice(&all[used..]);
            } else if c.carry.capacity() > 65536 {
                c.carry = Vec::new();
            }
            return Ok(());
        }
        // TLS, then WebSocket, then MQTT
        let mut plain = mem::take(&mut self.plain_in);
        let mut mq = mem::take(&mut self.mqtt_in);
        plain.clear();
        mq.clear();
        let r = self.read_layered(c, li, &buf[..n], &mut plain, &mut mq, now);
        self.plain_in = plain;
        self.mqtt_in = mq;
        r
    }

    fn read_layered(
        &mut self,
        c: &mut Client,
        li: u32,
        raw: &[u8],
        plain: &mut Vec<u8>,
        mq: &mut Vec<u8>,
        now: u64,
    ) -> Result<(), Death> {
        let mut tls_closed = false;
        let data: &[u8] = if let Some(t) = c.tls.as_mut() {
            let mut rd = raw;
            while !rd.is_empty() {
                t.read_tls(&mut rd).map_err(Death::Io)?;
                t.process_new_packets().map_err(|e| Death::Proto(format!("TLS: {e}")))?;
                loop {
                    let at = plain.len();
                    plain.resize(at + 16384, 0);
                    match t.reader().read(&mut plain[at..]) {
                        Ok(0) => {
                            plain.truncate(at);
                            tls_closed = true;
                            break;
                        }
                        Ok(n) => plain.truncate(at + n),
                        Err(e) => {
                            plain.truncate(at);
                            if e.kind() == io::ErrorKind::WouldBlock {
                                break;
                            }
                            return Err(Death::Io(e));
                        }
                    }
                }
                if tls_closed {
                    break;
                }
            }
            self.pump_tls(c, li)?;
            plain
        } else {
            raw
        };
        let mut data = data;
        if self.sh.cfg.net.ws.is_some() {
            if c.st == St::WsWait {
                c.carry.extend_from_slice(data);
                match ws::response(&c.carry).map_err(Death::Refused)? {
                    None => return if tls_closed { Err(Death::Eof) } else { Ok(()) },
                    Some(n) => {
                        let rest = c.carry.split_off(n);
                        c.carry.clear();
                        c.wsd = Some(Box::default());
                        self.send_connect(c, li)?;
                        *plain = rest;
                        data = plain;
                    }
                }
            }
            mq.extend_from_slice(&c.carry);
            let Some(d) = c.wsd.as_mut() else { return Err("WebSocket data before the upgrade".into()) };
            let r = d.feed(data, mq)?;
            for p in r.pings {
                self.send_layered(c, li, &p, 10)?;
            }
            let used = self.process(c, li, mq, now)?;
            c.carry.clear();
            c.carry.extend_from_slice(&mq[used..]);
            if let Some(code) = r.closed {
                return if c.st == St::Closing {
                    Err(Death::Eof)
                } else {
                    Err(Death::Proto(format!("WebSocket close, code {code}")))
                };
            }
        } else {
            mq.extend_from_slice(&c.carry);
            mq.extend_from_slice(data);
            let used = self.process(c, li, mq, now)?;
            c.carry.clear();
            c.carry.extend_from_slice(&mq[used..]);
        }
        if tls_closed {
            return Err(Death::Eof);
        }
        Ok(())
    }

    fn process(&mut self, c: &mut Client, li: u32, buf: &[u8], now: u64) -> Result<usize, Death> {
        let mut p = 0;
        let win_before = self.c.win_delivered;
        let del_before = self.c.delivered;
        while let Some(f) = codec::frame(&buf[p..])? {
            let body = &buf[p + f.hdr..p + f.total];
            p += f.total;
            match f.b0 >> 4 {
                codec::PUBLISH => self.on_publish(c, f.b0, body, now)?,
                codec::PUBACK => self.on_puback(c, li, body, now)?,
                k => self.on_other(c, li, k, body, now)?,
            }
        }
        if self.c.delivered != del_before {
            self.live.last_delivery = now;
            if let Some(s) = &mut c.sub {
                if s.t_first == 0 {
                    s.t_first = now;
                }
                s.t_last = now;
            }
            let n = self.c.win_delivered - win_before;
            if n > 0 {
                let s = ((now - self.w0) / 1_000_000_000) as usize;
                if self.per_sec.len() <= s {
                    self.per_sec.resize(s + 1, 0);
                }
                self.per_sec[s] += n;
            }
        }
        Ok(p)
    }

    #[inline(always)]
    fn on_publish(&mut self, c: &mut Client, b0: u8, body: &[u8], now: u64) -> Result<(), Death> {
        let m = codec::parse_publish(b0, body, self.v5)?;
        let Some(sub) = c.sub.as_deref_mut() else {
            return Err(Death::Proto("PUBLISH to a client without a subscription".into()));
        };
        match m.qos {
            0 => {}
            1 => codec::ack(&mut self.acks, codec::PUBACK, m.pid),
            _ => {
                codec::ack(&mut self.acks, codec::PUBREC, m.pid);
                if !sub.q2_insert(m.pid) {
                    self.c.retransmit += 1;
                    return Ok(());
                }
            }
        }
        let mut hdr = [0u8; HEADER];
        let hl = if self.hex { 2 * HEADER } else { HEADER };
        if m.payload.len() < hl || !read_header(self.hex, m.payload, &mut hdr) {
            self.c.foreign += 1;
            return Ok(());
        }
        let (id, seq, stamp, magic) = split_header(&hdr);
        if magic != self.magic {
            self.c.foreign += 1;
            return Ok(());
        }
        let i = id.wrapping_sub(sub.pub_base) as usize;
        let Some(t) = sub.trackers.get_mut(i) else {
            self.c.unexpected += 1;
            return Ok(());
        };
        let bodies = &self.sh.cfg.payload.bodies;
        let want = if bodies.len() == 1 { &bodies[0] } else { &bodies[(seq % bodies.len() as u64) as usize] };
        if m.payload[hl..] != want[..] || seq > t.next + (1 << 32) {
            self.c.corrupt += 1;
            return Ok(());
        }
        let old = t.next;
        let seen = t.on(seq, m.dup, self.topics);
        if self.closed && (old >> self.shift) != (t.next >> self.shift) {
            let w = &self.sh.windows[id as usize];
            if w.advance(old, t.next) {
                let (wid, li) = w.owner;
                if wid == self.wid {
                    self.mark_ready(li);
                } else {
                    let ib = &self.sh.inboxes[wid];
                    ib.ready.lock().unwrap().push(li);
                    sys::eventfd_set(ib.efd);
                }
            }
        }
        self.c.delivered += 1;
        self.loop_lat = self.loop_lat.min(now.saturating_sub(stamp));
        if sub.quiet {
            self.live.q_unique += (seen != Seen::Dup) as u64;
            return Ok(());
        }
        if seen == Seen::Dup {
            self.live.dup += 1;
            return Ok(());
        }
        self.live.unique += 1;
        self.c.retain_flag += m.retain as u64;
        if now >= self.w0 && now < self.w1 {
            self.c.win_delivered += 1;
            self.c.win_bytes += m.payload.len() as u64;
            sub.win += 1;
        }
        if stamp >= self.w0 && stamp < self.w1 {
            self.hist.saturating_record(now.saturating_sub(stamp).max(1));
        }
        Ok(())
    }

    #[inline]
    fn on_puback(&mut self, c: &mut Client, li: u32, body: &[u8], now: u64) -> Result<(), Death> {
        let (pid, code) = codec::parse_ack(body)?;
        self.acked(c, li, pid, code, now)
    }

    fn acked(&mut self, c: &mut Client, li: u32, pid: u16, code: u8, now: u64) -> Result<(), Death> {
        let Some(p) = c.publ.as_deref_mut() else {
            self.c.bad_ack += 1;
            return Ok(());
        };
        let Some(seq) = ack_seq(p.ack_base, p.seq, pid) else {
            self.c.bad_ack += 1;
            return Ok(());
        };
        let mask = p.ring.len() as u64 - 1;
        let slot = &mut p.ring[(seq & mask) as usize];
        if *slot == 0 {
            self.c.bad_ack += 1;
            return Ok(());
        }
        let t = *slot;
        *slot = 0;
        if code >= 0x80 {
            self.c.rejected += 1;
        } else {
            p.acked += 1;
            self.live.acked += 1;
            if now >= self.w0 && now < self.w1 {
                self.c.win_acked += 1;
            }
            if t >= self.w0 && t < self.w1 {
                self.ack_hist.saturating_record(now.saturating_sub(t).max(1));
            }
            if let Some(l) = &mut self.ledger {
                let _ = writeln!(l, "{seq}");
            }
        }
        while p.ack_base < p.seq && p.ring[(p.ack_base & mask) as usize] == 0 {
            p.ack_base += 1;
        }
        if p.active || !p.done {
            self.mark_ready(li);
        }
        Ok(())
    }

    fn on_other(&mut self, c: &mut Client, li: u32, kind: u8, body: &[u8], now: u64) -> Result<(), Death> {
        match kind {
            codec::CONNACK => {
                if c.st != St::ConnackWait {
                    return Err("unexpected CONNACK".into());
                }
                let a = codec::parse_connack(body, self.v5)?;
                if a.code != 0 {
                    return Err(Death::Refused(format!(
                        "CONNACK code {} ({})",
                        a.code,
                        codec::reason(a.code, self.v5)
                    )));
                }
                c.st = St::Up;
                self.in_progress -= 1;
                self.live.connected += 1;
                self.live.session_present += a.session_present as u64;
                self.live.last_connack = now;
                self.conn_hist.saturating_record(now.saturating_sub(c.t_connect).max(1));
                if let Some(p) = c.publ.as_deref_mut() {
                    if let Some(m) = a.receive_max {
                        p.inflight = p.inflight.min(m as u64);
                    }
                    if a.max_qos.is_some_and(|q| q < p.qos) {
                        return Err(Death::Refused(
                            "the broker's Maximum QoS is below the one asked for".into(),
                        ));
                    }
                    if p.retain && a.retain_available == Some(0) {
                        return Err(Death::Refused("the broker does not support retained messages".into()));
                    }
                    let size = self.sh.cfg.payload.max_len() + p.topics[0].len() + 12;
                    if a.max_packet.is_some_and(|m| (m as usize) < size) {
                        return Err(Death::Refused(
                            "the broker's Maximum Packet Size is below the message size".into(),
                        ));
                    }
                    self.mark_ready(li);
                }
            }
            codec::SUBACK => {
                let (_, code) = codec::parse_suback(body, self.v5)?;
                if code >= 0x80 {
                    return Err(Death::Refused(format!(
                        "SUBACK code {code:#x} ({})",
                        codec::reason(code, self.v5)
                    )));
                }
                if c.spec.sub.as_ref().is_some_and(|s| code < s.qos) {
                    self.c.downgraded += 1;
                }
                self.live.subacked += 1;
            }
            codec::PUBREC => {
                let (pid, code) = codec::parse_ack(body)?;
                if code >= 0x80 {
                    return self.acked(c, li, pid, code, now);
                }
                codec::ack(&mut self.acks, codec::PUBREL, pid);
            }
            codec::PUBREL => {
                let (pid, _) = codec::parse_ack(body)?;
                if let Some(s) = c.sub.as_deref_mut() {
                    s.q2_remove(pid);
                }
                codec::ack(&mut self.acks, codec::PUBCOMP, pid);
            }
            codec::PUBCOMP => {
                let (pid, _) = codec::parse_ack(body)?;
                return self.acked(c, li, pid, 0, now);
            }
            codec::PINGRESP => self.live.pongs += 1,
            codec::DISCONNECT => {
                let code = body.first().copied().unwrap_or(0);
                return Err(Death::Proto(format!(
                    "the broker sent DISCONNECT, reason {code:#x} ({})",
                    codec::reason(code, self.v5)
                )));
            }
            _ => return Err(Death::Proto(format!("unexpected packet type {kind}"))),
        }
        Ok(())
    }

    fn check_done(&mut self, c: &mut Client) {
        if let Some(p) = c.publ.as_deref_mut()
            && !p.done
            && p.seq > 0
            && p.seq == p.limit
            && (p.qos == 0 || p.ack_base == p.seq)
            && c.out_pos == c.out.len()
        {
            p.done = true;
            self.live.pub_done += 1;
        }
    }

    /// Publishes as much as pace, windows and back-pressure allow, up to one burst.
    fn try_publish(&mut self, c: &mut Client, li: u32, now: u64) -> Result<(), Death> {
        let mut left = self.burst;
        while left > 0 {
            match self.publish_some(c, li, now, left)? {
                0 => return Ok(()),
                n => left -= n,
            }
        }
        // fair: the others first
        self.mark_ready(li);
        Ok(())
    }

    /// Publishes up to `most` messages in one write; 0 where an event must come first.
    fn publish_some(&mut self, c: &mut Client, li: u32, now: u64, most: u64) -> Result<u64, Death> {
        let pending = c.out.len() - c.out_pos;
        let up = c.st == St::Up;
        let Some(p) = c.publ.as_deref_mut() else { return Ok(0) };
        if !p.active || !up {
            self.check_done(c);
            return Ok(0);
        }
        // with a rate, what was due in time may still go out
        let grace = if p.rate { STOP_GRACE } else { 0 };
        if now >= self.stop_at.saturating_add(grace) {
            p.stop();
            return Ok(0);
        }
        if pending > HIGH_WATER {
            return Ok(0); // the writable event brings it back
        }
        let mut n = most.min(p.limit - p.seq);
        if p.rate {
            n = n.min(p.backlog.len() as u64);
        }
        if n == 0 {
            self.check_done(c);
            return Ok(0);
        }
        if p.qos > 0 {
            let room = p.ack_base + p.inflight - p.seq;
            if room == 0 {
                return Ok(0); // an acknowledgement brings it back
            }
            n = n.min(room);
        }
        let sh = self.sh.clone();
        if self.closed {
            let w = &sh.windows[p.id as usize];
            let room = |p: &PubState| (w.base().max(p.forced_base) + w.window).saturating_sub(p.seq);
            let mut r = room(p);
            if r == 0 {
                w.blocked.store(true, SeqCst);
                r = room(p);
                if r == 0 {
                    let base = w.base();
                    if p.blocked_since == 0 || p.blocked_base != base {
                        p.blocked_since = now;
                        p.blocked_base = base;
                    }
                    return Ok(0); // a delivery brings it back
                }
                w.blocked.store(false, SeqCst);
            }
            p.blocked_since = 0;
            n = n.min(r);
        }
        let mut st = mem::take(&mut self.stage);
        st.clear();
        let t = sys::now_ns();
        let pl = &sh.cfg.payload;
        let mask = p.ring.len() as u64;
        for _ in 0..n {
            let mut stamp = t;
            if p.rate
                && let Some(s) = p.backlog.pop_front()
            {
                let lag = t.saturating_sub(s);
                if lag > self.c.max_lag_ns && s >= self.w0 {
                    self.c.max_lag_ns = lag;
                }
                if lag > LAG_TOLERANCE {
                    stamp = s;
                    self.c.late_sends += 1;
                }
            }
            encode_publish(&mut st, p, pl, self.v5, stamp, self.magic);
            if mask > 0 {
                p.ring[(p.seq & (mask - 1)) as usize] = t;
            }
            p.seq += 1;
        }
        self.live.sent += n;
        if t >= self.w0 && t < self.w1 {
            self.c.win_sent += n;
        }
        let r = self.send(c, li, &st);
        self.stage = st;
        r?;
        Ok(n)
    }
}

impl PubState {
    fn stop(&mut self) {
        self.active = false;
        self.not_sent += self.backlog.len() as u64;
        self.backlog.clear();
    }
}

/// The sequence that packet id `pid` stands for, given what is in flight.
fn ack_seq(base: u64, next: u64, pid: u16) -> Option<u64> {
    if pid == 0 {
        return None;
    }
    let off = (pid as u64 - 1 + 65535 - base % 65535) % 65535;
    let seq = base + off;
    (seq < next).then_some(seq)
}

fn pid_of(seq: u64) -> u16 {
    (seq % 65535) as u16 + 1
}

#[inline]
fn encode_publish(b: &mut Vec<u8>, p: &PubState, pl: &Payload, v5: bool, stamp: u64, magic: u32) {
    let seq = p.seq;
    let topic: &[u8] =
        if p.topics.len() == 1 { &p.topics[0] } else { &p.topics[(seq % p.topics.len() as u64) as usize] };
    let body: &[u8] = if pl.bodies.len() == 1 {
        &pl.bodies[0]
    } else {
        &pl.bodies[(seq % pl.bodies.len() as u64) as usize]
    };
    codec::publish_head(b, v5, p.qos, p.retain, topic, pid_of(seq), pl.header_len() + body.len());
    let mut h = [0u8; HEADER];
    h[0..4].copy_from_slice(&p.id.to_le_bytes());
    h[4..12].copy_from_slice(&seq.to_le_bytes());
    h[12..20].copy_from_slice(&stamp.to_le_bytes());
    h[20..24].copy_from_slice(&magic.to_le_bytes());
    if pl.hex {
        const D: &[u8; 16] = b"0123456789abcdef";
        let mut x = [0u8; 2 * HEADER];
        for (i, v) in h.iter().enumerate() {
            x[2 * i] = D[(v >> 4) as usize];
            x[2 * i + 1] = D[(v & 15) as usize];
        }
        b.extend_from_slice(&x);
    } else {
        b.extend_from_slice(&h);
    }
    b.extend_from_slice(body);
}

#[inline(always)]
fn read_header(hex: bool, payload: &[u8], h: &mut [u8; HEADER]) -> bool {
    if !hex {
        h.copy_from_slice(&payload[..HEADER]);
        return true;
    }
    let d = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    for i in 0..HEADER {
        match (d(payload[2 * i]), d(payload[2 * i + 1])) {
            (Some(a), Some(b)) => h[i] = a << 4 | b,
            _ => return false,
        }
    }
    true
}

#[inline(always)]
fn split_header(h: &[u8; HEADER]) -> (u32, u64, u64, u32) {
    (
        u32::from_le_bytes(h[0..4].try_into().unwrap()),
        u64::from_le_bytes(h[4..12].try_into().unwrap()),
        u64::from_le_bytes(h[12..20].try_into().unwrap()),
        u32::from_le_bytes(h[20..24].try_into().unwrap()),
    )
}

#[inline]
fn token(li: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | li as u64
}

impl Worker {
    fn new(wid: usize, sh: Arc<Shared>, specs: Vec<Spec>) -> io::Result<Worker> {
        let cfg = &sh.cfg;
        let ep = Epoll::new()?;
        ep.add(sh.inboxes[wid].efd, sys::IN, EV_WAKE)?;
        let big = cfg.payload.max_len() + 1024;
        let cl: Vec<Client> = specs
            .into_iter()
            .map(|spec| Client {
                fd: -1,
                generation: 0,
                st: St::Idle,
                paused: false,
                mask: 0,
                t_connect: 0,
                carry: Vec::new(),
                out: Vec::new(),
                out_pos: 0,
                tls: None,
                wsd: None,
                sub: spec.sub.as_ref().map(|s| {
                    Box::new(SubState {
                        trackers: vec![Tracker::default(); s.pub_count as usize],
                        pub_base: s.pub_base,
                        quiet: s.quiet,
                        win: 0,
                        t_subscribe: 0,
                        t_first: 0,
                        t_last: 0,
                        q2: None,
                    })
                }),
                publ: spec.publ.as_ref().map(|p| {
                    let inflight = p.inflight.clamp(1, 65534);
                    Box::new(PubState {
                        id: p.id,
                        qos: p.qos,
                        retain: p.retain,
                        topics: p.topics.clone(),
                        active: false,
                        rate: false,
                        seq: 0,
                        limit: u64::MAX,
                        ring: if p.qos > 0 {
                            vec![0; inflight.next_power_of_two() as usize]
                        } else {
                            Vec::new()
                        },
                        ack_base: 0,
                        acked: 0,
                        inflight,
                        offered: 0,
                        not_sent: 0,
                        backlog: VecDeque::new(),
                        blocked_since: 0,
                        blocked_base: 0,
                        forced_base: 0,
                        stalls: 0,
                        stalled_msgs: 0,
                        done: false,
                    })
                }),
                spec,
                died: None,
                hup_paused: false,
                stamped: false,
            })
            .collect();
        let nsubs = cl.iter().filter(|c| c.sub.is_some()).count() as u64;
        let x = Ctx {
            wid,
            ep,
            v5: cfg.net.v5,
            plain: cfg.net.tls.is_none() && cfg.net.ws.is_none(),
            hex: cfg.payload.hex,
            magic: cfg.magic,
            topics: cfg.topics,
            closed: !sh.windows.is_empty(),
            shift: sh.windows.first().map_or(0, |w| w.shift),
            burst: (65536 / big as u64).clamp(1, 256),
            w0: u64::MAX,
            w1: 0,
            stop_at: u64::MAX,
            rbuf: vec![0; (256 * 1024).max(2 * big)],
            plain_in: Vec::new(),
            mqtt_in: Vec::new(),
            stage: Vec::new(),
            acks: Vec::new(),
            enc1: Vec::new(),
            enc2: Vec::new(),
            rng: sys::random_u32() | 1,
            ready: Vec::new(),
            ready_flag: vec![false; cl.len()],
            live: Live::default(),
            c: Counters::default(),
            hist: new_hist(),
            ack_hist: new_hist(),
            conn_hist: new_hist(),
            per_sec: Vec::new(),
            ledger: match &cfg.ledger {
                None => None,
                Some(path) => Some(BufWriter::new(File::options().append(true).open(path)?)),
            },
            in_progress: 0,
            loop_bytes: 0,
            more: false,
            loop_lat: 0,
            real_off: sys::real_offset(),
            sh: sh.clone(),
        };
        Ok(Worker {
            x,
            cl,
            threads: cfg.threads,
            pacer: None,
            connq: VecDeque::new(),
            conn_window: 64,
            conn_gap: 0.0,
            conn_due: 0.0,
            nap: Nap::Off,
            last_house: 0,
            last_delivered: 0,
            four_msgs: 0,
            nsubs,
        })
    }

    fn local(&self, from: u32, to: u32) -> impl Iterator<Item = u32> + use<> {
        let (t, w) = (self.threads as u32, self.x.wid as u32);
        let lo = from.saturating_sub(w).div_ceil(t);
        let hi = to.saturating_sub(w).div_ceil(t);
        lo..hi.min(self.cl.len() as u32).max(lo)
    }

    fn gid(&self, li: u32) -> u32 {
        li * self.threads as u32 + self.x.wid as u32
    }

    fn die(&mut self, li: u32, d: Death) {
        let c = &mut self.cl[li as usize];
        let was = c.st;
        if c.fd >= 0 {
            sys::close(c.fd);
            c.fd = -1;
        }
        c.generation = c.generation.wrapping_add(1);
        c.mask = 0;
        c.paused = false;
        if was == St::Closing {
            c.st = St::Closed;
            self.x.live.closed += 1;
            return;
        }
        c.st = St::Dead;
        let connecting = matches!(was, St::TcpWait | St::WsWait | St::ConnackWait | St::Idle);
        if matches!(was, St::TcpWait | St::WsWait | St::ConnackWait) {
            self.x.in_progress -= 1;
        }
        let (code, why) = match d {
            Death::Eof => (DIED, "closed by the broker".to_string()),
            Death::Io(e) => (DIED, e.to_string()),
            Death::Proto(s) => (DIED, s),
            Death::Refused(s) => (REFUSED, s),
        };
        if let Some(p) = c.publ.as_deref_mut() {
            p.stop();
        }
        c.died = Some(why.clone());
        self.x.live.died += 1;
        if c.spec.may_die && !connecting {
            return;
        }
        let cid = c.spec.cid.clone();
        let sh = self.x.sh.clone();
        let at = sh.cfg.net.addr;
        let (code, msg) = if connecting {
            (
                if code == DIED { REFUSED } else { code },
                format!("client {cid} could not connect to {at}: {why}"),
            )
        } else if code == REFUSED {
            (code, format!("{at} refused client {cid}: {why}"))
        } else {
            (code, format!("connection of client {cid} to {at} died: {why}"))
        };
        let mut f = sh.fail.lock().unwrap();
        if f.is_none() {
            *f = Some(Fail { code, msg });
        }
        drop(f);
        sh.failed.store(true, SeqCst);
    }

    fn start_connect(&mut self, li: u32) {
        let x = &mut self.x;
        let c = &mut self.cl[li as usize];
        if c.fd >= 0 {
            sys::close(c.fd);
            c.fd = -1;
        }
        c.generation = c.generation.wrapping_add(1);
        c.carry.clear();
        c.out.clear();
        c.out_pos = 0;
        c.tls = None;
        c.wsd = None;
        c.died = None;
        c.paused = false;
        c.st = St::Idle;
        c.t_connect = sys::now_ns();
        match sys::connect(&x.sh.cfg.net.addr, c.spec.src, c.spec.rcvbuf) {
            Err(e) => self.die(li, Death::Io(e)),
            Ok(fd) => {
                c.fd = fd;
                c.st = St::TcpWait;
                c.mask = sys::IN | sys::OUT | sys::RDHUP | sys::ET;
                x.in_progress += 1;
                if let Err(e) = x.ep.add(fd, c.mask, token(li, c.generation)) {
                    self.die(li, Death::Io(e));
                }
            }
        }
    }

    fn with(&mut self, li: u32, f: impl FnOnce(&mut Ctx, &mut Client) -> Result<(), Death>) {
        if let Err(d) = f(&mut self.x, &mut self.cl[li as usize]) {
            self.die(li, d);
        }
    }

    /// False on quit.
    fn command(&mut self, cmd: Cmd) -> bool {
        match cmd {
            Cmd::Connect { from, to, rate, window, only_dead } => {
                for li in self.local(from, to) {
                    if !only_dead || self.cl[li as usize].st == St::Dead {
                        self.connq.push_back(li);
                    }
                }
                let t = self.threads as f64;
                self.conn_window = (window as f64 / t).ceil().max(1.0) as u32;
                self.conn_gap = if rate > 0.0 { 1e9 * t / rate } else { 0.0 };
                self.conn_due = sys::now_ns() as f64;
            }
            Cmd::Subscribe { from, to } => {
                let mut b = Vec::new();
                for li in self.local(from, to) {
                    let v5 = self.x.v5;
                    let c = &mut self.cl[li as usize];
                    let Some(s) = &c.spec.sub else { continue };
                    if c.st != St::Up {
                        continue;
                    }
                    b.clear();
                    codec::subscribe(&mut b, v5, 1, s.filter.as_bytes(), s.qos);
                    if let Some(s) = &mut c.sub {
                        s.t_subscribe = sys::now_ns();
                    }
                    self.with(li, |x, c| x.send(c, li, &b));
                }
            }
            Cmd::Ping { from, to } => {
                let mut b = Vec::new();
                codec::pingreq(&mut b);
                for li in self.local(from, to) {
                    if self.cl[li as usize].st == St::Up {
                        self.with(li, |x, c| x.send(c, li, &b));
                    }
                }
            }
            Cmd::ClearRetained { from, to } => {
                for li in self.local(from, to) {
                    let Some(p) = &self.cl[li as usize].publ else { continue };
                    let mut b = Vec::new();
                    for t in p.topics.iter() {
                        codec::publish_head(&mut b, self.x.v5, 0, true, t, 0, 0);
                    }
                    self.with(li, |x, c| x.send(c, li, &b));
                }
            }
            Cmd::Publish { from, to, t0, w0, w1, stop_at, pace, count } => {
                let x = &mut self.x;
                x.w0 = w0;
                x.w1 = w1;
                x.stop_at = stop_at;
                let ids: Vec<u32> =
                    self.local(from, to).filter(|&li| self.cl[li as usize].publ.is_some()).collect();
                for &li in &ids {
                    let p = self.cl[li as usize].publ.as_deref_mut().unwrap();
                    p.active = true;
                    p.done = false;
                    p.limit = count;
                    p.rate = matches!(pace, Pace::Rate(_));
                    self.x.mark_ready(li);
                }
                if let Pace::Rate(r) = pace {
                    // this worker's share of the messages; interleaved with those of the others
                    let share = ids.len() as f64 / (to - from).max(1) as f64;
                    if !ids.is_empty() && r > 0.0 {
                        let per_ns = 1e9 / (r * share);
                        self.pacer = Some(Pacer {
                            t0: t0 + (per_ns * self.x.wid as f64 / self.threads as f64) as u64,
                            k: 0,
                            n: if count == u64::MAX { u64::MAX } else { count * ids.len() as u64 },
                            per_ns,
                            pubs: ids,
                            last: 0,
                        });
                    }
                }
            }
            Cmd::PubStop => {
                self.pacer = None;
                self.x.stop_at = 0;
                for c in &mut self.cl {
                    if let Some(p) = c.publ.as_deref_mut() {
                        p.stop();
                    }
                }
            }
            Cmd::Pause { from, to } => {
                for li in self.local(from, to) {
                    let c = &mut self.cl[li as usize];
                    c.paused = true;
                    self.x.arm(c, li);
                }
            }
            Cmd::Resume { from, to } => {
                for li in self.local(from, to) {
                    let c = &mut self.cl[li as usize];
                    c.paused = false;
                    if c.fd < 0 {
                        continue;
                    }
                    if c.hup_paused {
                        c.mask = sys::IN | sys::RDHUP | sys::ET;
                        let _ = self.x.ep.add(c.fd, c.mask, token(li, c.generation));
                    }
                    self.x.arm(c, li);
                }
            }
            Cmd::SetClean { from, to, clean } => {
                for li in self.local(from, to) {
                    self.cl[li as usize].spec.clean = clean;
                }
            }
            Cmd::Nap(on) => self.nap = on,
            Cmd::Disconnect { from, to } => {
                let mut b = Vec::new();
                codec::disconnect(&mut b);
                for li in self.local(from, to) {
                    let c = &mut self.cl[li as usize];
                    if c.fd < 0 {
                        continue;
                    }
                    let up = c.st == St::Up;
                    if matches!(c.st, St::TcpWait | St::WsWait | St::ConnackWait) {
                        self.x.in_progress -= 1;
                    }
                    c.st = St::Closing;
                    c.paused = false;
                    if up {
                        self.with(li, |x, c| x.send(c, li, &b));
                    } else {
                        self.die(li, Death::Eof);
                    }
                }
            }
            Cmd::Quit => return false,
        }
        true
    }

    fn event(&mut self, e: Event) {
        let (data, flags) = (e.u64, e.events);
        let li = data as u32;
        let c = &mut self.cl[li as usize];
        if c.generation != (data >> 32) as u32 || c.fd < 0 {
            return;
        }
        if c.st == St::TcpWait {
            if flags & (sys::OUT | sys::ERR | sys::HUP) != 0 {
                self.with(li, |x, c| x.on_tcp(c, li));
            }
            return;
        }
        if c.paused {
            if flags & (sys::RDHUP | sys::ERR | sys::HUP) != 0 && !c.hup_paused {
                // note it, and look at the rest when reading is resumed
                c.hup_paused = true;
                let _ = self.x.ep.del(c.fd);
                self.x.live.hup_paused += 1;
                return;
            }
        } else if flags & (sys::IN | sys::ERR | sys::HUP | sys::RDHUP) != 0 {
            let hangup = flags & (sys::ERR | sys::HUP | sys::RDHUP) != 0;
            self.with(li, |x, c| x.on_readable(c, li, hangup));
        }
        let c = &mut self.cl[li as usize];
        if flags & sys::OUT != 0 && c.fd >= 0 && c.generation == (data >> 32) as u32 {
            self.with(li, |x, c| x.flush(c, li));
            if self.cl[li as usize].publ.is_some() {
                self.x.mark_ready(li);
            }
        }
    }

    fn house(&mut self, now: u64) {
        let d = self.x.c.delivered - self.last_delivered;
        self.four_msgs = (4 * self.nsubs * (now - self.last_house)).checked_div(d).unwrap_or(0);
        self.last_delivered = self.x.c.delivered;
        self.last_house = now;
        self.x.real_off = sys::real_offset();
        if self.x.closed && now < self.x.stop_at {
            for li in 0..self.cl.len() as u32 {
                let Some(p) = self.cl[li as usize].publ.as_deref_mut() else { continue };
                if p.active && p.blocked_since > 0 && now - p.blocked_since > self.x.sh.cfg.stall_ns {
                    // the tail was lost: give those messages up and go on
                    let base = self.x.sh.windows[p.id as usize].base().max(p.forced_base);
                    p.stalls += 1;
                    p.stalled_msgs += p.seq - base;
                    p.forced_base = p.seq;
                    p.blocked_since = 0;
                    self.x.mark_ready(li);
                }
            }
        }
        if let Some(l) = &mut self.x.ledger {
            let _ = l.flush();
        }
    }

    fn run(mut self) -> WorkerOut {
        sys::tight_timers();
        let mut ev = vec![Event { events: 0, u64: 0 }; 1024];
        let nap = self.x.sh.cfg.nap_ns;
        let tick = self.x.sh.cfg.tick_ns;
        let efd = self.x.sh.inboxes[self.x.wid].efd;
        let mut quit = false;
        while !quit {
            let mut now = sys::now_ns();
            let mut timeout = 200_000_000;
            if !self.x.ready.is_empty() {
                timeout = 0;
            } else {
                if let Some(p) = &self.pacer {
                    let at = p.due().max(p.last + tick);
                    timeout = timeout.min(at.saturating_sub(now));
                }
                if !self.connq.is_empty() && self.x.in_progress < self.conn_window {
                    timeout = timeout.min((self.conn_due as u64).saturating_sub(now));
                }
            }
            let n = match self.x.ep.wait(&mut ev, timeout) {
                Ok(n) => n,
                Err(e) => {
                    let mut f = self.x.sh.fail.lock().unwrap();
                    *f = Some(Fail::new(1, format!("epoll: {e}")));
                    self.x.sh.failed.store(true, SeqCst);
                    break;
                }
            };
            self.x.c.loops += 1;
            self.x.loop_bytes = 0;
            self.x.loop_lat = u64::MAX;
            for e in &ev[..n] {
                let e = *e;
                if e.u64 == EV_WAKE {
                    sys::eventfd_clear(efd);
                    let sh = self.x.sh.clone();
                    let ib = &sh.inboxes[self.x.wid];
                    let woken = mem::take(&mut *ib.ready.lock().unwrap());
                    for li in woken {
                        self.x.mark_ready(li);
                    }
                    let cmds = mem::take(&mut *ib.cmds.lock().unwrap());
                    for c in cmds {
                        quit |= !self.command(c);
                    }
                } else {
                    self.event(e);
                }
            }
            now = sys::now_ns();
            if let Some(mut p) = self.pacer.take() {
                let mut keep = true;
                loop {
                    if p.k >= p.n {
                        keep = false;
                        break;
                    }
                    let due = p.due();
                    if due >= self.x.stop_at {
                        keep = false;
                        break;
                    }
                    if due > now {
                        break;
                    }
                    let li = p.pubs[(p.k % p.pubs.len() as u64) as usize];
                    p.k += 1;
                    let s = self.cl[li as usize].publ.as_deref_mut().unwrap();
                    s.offered += 1;
                    if s.active {
                        s.backlog.push_back(due);
                        self.x.mark_ready(li);
                    } else {
                        s.not_sent += 1;
                    }
                    p.last = now;
                }
                if keep {
                    self.pacer = Some(p);
                }
            }
            if !self.x.ready.is_empty() {
                let list = mem::take(&mut self.x.ready);
                for &li in &list {
                    self.x.ready_flag[li as usize] = false;
                }
                for &li in &list {
                    self.with(li, |x, c| x.try_publish(c, li, now));
                }
                if self.x.ready.is_empty() {
                    // keep the allocation
                    self.x.ready = list;
                    self.x.ready.clear();
                }
            }
            let mut started = 0;
            while started < 64
                && !self.connq.is_empty()
                && self.x.in_progress < self.conn_window
                && (self.conn_gap == 0.0 || self.conn_due <= now as f64)
            {
                let li = self.connq.pop_front().unwrap();
                self.start_connect(li);
                self.conn_due += self.conn_gap;
                started += 1;
            }
            if now - self.last_house > 100_000_000 {
                self.house(now);
            }
            self.x.sh.stats[self.x.wid].publish(&self.x.live);
            // Let small reads coalesce instead of waking up for every message.
            if n > 0 && self.nap != Nap::Off && self.x.ready.is_empty() && self.x.loop_bytes < n * 4096 {
                let lat = if self.x.loop_lat == u64::MAX { 0 } else { self.x.loop_lat };
                let mut d = match (nap, self.nap) {
                    (Some(ns), _) => ns,
                    (None, Nap::Fixed) => 0,
                    (None, Nap::Bulk) => (lat / 10).min(3_000_000),
                    (None, _) => (lat / 50).min(self.four_msgs).min(1_000_000),
                };
                if let Some(p) = &self.pacer {
                    d = d.min(p.due().max(p.last + tick).saturating_sub(now));
                }
                if d > 10_000 {
                    self.x.c.naps += 1;
                    sys::nap_ns(d);
                }
            }
        }
        self.finish()
    }

    fn finish(mut self) -> WorkerOut {
        if let Some(l) = &mut self.x.ledger {
            let _ = l.flush();
        }
        let (mut subs, mut pubs) = (Vec::new(), Vec::new());
        for li in 0..self.cl.len() as u32 {
            let gid = self.gid(li);
            let c = &mut self.cl[li as usize];
            if let Some(s) = c.sub.take() {
                subs.push(SubOut {
                    gid,
                    trackers: s.trackers,
                    pub_base: s.pub_base,
                    quiet: s.quiet,
                    win_delivered: s.win,
                    t_subscribe: s.t_subscribe,
                    t_first: s.t_first,
                    t_last: s.t_last,
                });
            }
            if let Some(p) = c.publ.take() {
                pubs.push(PubOut {
                    id: p.id,
                    sent: p.seq,
                    acked: p.acked,
                    offered: p.offered,
                    not_sent: p.not_sent,
                    stalls: p.stalls,
                    stalled_msgs: p.stalled_msgs,
                    unflushed: (c.out.len() - c.out_pos) as u64,
                    died: c.died.clone(),
                });
            }
            if c.fd >= 0 {
                // no TIME_WAIT for what the broker did not close by itself
                let l = libc::linger { l_onoff: 1, l_linger: 0 };
                unsafe {
                    libc::setsockopt(
                        c.fd,
                        libc::SOL_SOCKET,
                        libc::SO_LINGER,
                        &l as *const _ as *const _,
                        mem::size_of_val(&l) as u32,
                    );
                }
                sys::close(c.fd);
            }
        }
        WorkerOut {
            c: self.x.c,
            hist: self.x.hist,
            ack_hist: self.x.ack_hist,
            conn_hist: self.x.conn_hist,
            per_sec: self.x.per_sec,
            subs,
            pubs,
        }
    }
}

// ----------------------------------------------------------------- controller

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    Done,
    /// No progress any more.
    Idle,
    /// Still going on when the time was over.
    Max,
}

pub struct Engine {
    pub sh: Arc<Shared>,
    join: Vec<JoinHandle<WorkerOut>>,
}

/// A closed-loop window for each publisher: (subscribers of it, window), by publisher id.
pub struct Windows {
    pub each: Vec<(u64, u64)>,
    pub shift: u32,
}

impl Engine {
    pub fn start(cfg: Config, specs: Vec<Spec>, windows: Option<Windows>) -> Result<Engine, Fail> {
        let threads = cfg.threads;
        let mut inboxes = Vec::new();
        for _ in 0..threads {
            inboxes.push(Inbox { cmds: Mutex::default(), ready: Mutex::default(), efd: sys::eventfd()? });
        }
        let mut split: Vec<Vec<Spec>> = (0..threads).map(|_| Vec::new()).collect();
        let mut owner = std::collections::HashMap::new();
        for (i, s) in specs.into_iter().enumerate() {
            let w = i % threads;
            if let Some(p) = &s.publ {
                owner.insert(p.id, (w, split[w].len() as u32));
            }
            split[w].push(s);
        }
        let windows = match windows {
            None => Vec::new(),
            Some(w) => w
                .each
                .iter()
                .enumerate()
                .map(|(id, &(subs, win))| {
                    PubWindow::new(subs, win, w.shift, owner.get(&(id as u32)).copied().unwrap_or((0, 0)))
                })
                .collect(),
        };
        let sh = Arc::new(Shared {
            cfg,
            inboxes,
            stats: (0..threads).map(|_| Stats::default()).collect(),
            windows,
            failed: AtomicBool::new(false),
            fail: Mutex::new(None),
        });
        let mut join = Vec::new();
        for (wid, specs) in split.into_iter().enumerate() {
            let w = Worker::new(wid, sh.clone(), specs)?;
            join.push(std::thread::Builder::new().name(format!("worker{wid}")).spawn(move || w.run())?);
        }
        Ok(Engine { sh, join })
    }

    pub fn cmd(&self, c: Cmd) {
        for ib in &self.sh.inboxes {
            ib.cmds.lock().unwrap().push(c.clone());
            sys::eventfd_set(ib.efd);
        }
    }

    pub fn live(&self) -> Live {
        let mut l = Live::default();
        let (mut ld, mut lc) = (0, 0);
        for s in &self.sh.stats {
            s.add_to(&mut l);
            ld = ld.max(s.last_delivery.load(Relaxed));
            lc = lc.max(s.last_connack.load(Relaxed));
        }
        l.last_delivery = ld;
        l.last_connack = lc;
        l
    }

    pub fn check(&self) -> Result<(), Fail> {
        if self.sh.failed.load(SeqCst) {
            return Err(self.sh.fail.lock().unwrap().clone().unwrap_or(Fail::new(1, "unknown failure")));
        }
        Ok(())
    }

    pub fn wait(&self, limit: Duration, what: &str, done: impl Fn(&Live) -> bool) -> Result<Live, Fail> {
        let t = Instant::now();
        loop {
            self.check()?;
            let l = self.live();
            if done(&l) {
                return Ok(l);
            }
            if t.elapsed() > limit {
                return Err(Fail::new(
                    TIMEOUT,
                    format!("no end of {what} within {:.1} s", limit.as_secs_f64()),
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until `done`, or until `progress` has not changed for `idle`, or `max` has passed.
    pub fn settle(
        &self,
        idle: Duration,
        max: Duration,
        progress: impl Fn(&Live) -> u64,
        done: impl Fn(&Live) -> bool,
    ) -> Result<Settled, Fail> {
        let t = Instant::now();
        let mut last = progress(&self.live());
        let mut since = Instant::now();
        loop {
            self.check()?;
            let l = self.live();
            if done(&l) {
                return Ok(Settled::Done);
            }
            let p = progress(&l);
            if p != last {
                last = p;
                since = Instant::now();
            }
            if since.elapsed() > idle {
                return Ok(Settled::Idle);
            }
            if t.elapsed() > max {
                return Ok(Settled::Max);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sleeps until `t` (CLOCK_MONOTONIC ns), calling `f` about every 100 ms.
    pub fn sleep_until(&self, t: u64, mut f: impl FnMut()) -> Result<(), Fail> {
        loop {
            self.check()?;
            let now = sys::now_ns();
            if now >= t {
                return Ok(());
            }
            sys::nap_ns((t - now).min(100_000_000));
            f();
        }
    }

    pub fn disconnect(&self, from: u32, to: u32, limit: Duration) -> bool {
        let before = self.live();
        self.cmd(Cmd::Disconnect { from, to });
        let n = (to - from) as u64;
        let t = Instant::now();
        // those that are dead already do not close again
        while t.elapsed() < limit {
            let l = self.live();
            if l.closed - before.closed + l.died >= n {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    pub fn finish(mut self) -> WorkerOut {
        self.cmd(Cmd::Quit);
        let mut all: Option<WorkerOut> = None;
        for j in mem::take(&mut self.join) {
            let o = j.join().expect("worker panicked");
            all = Some(match all {
                None => o,
                Some(mut a) => {
                    a.c.add(&o.c);
                    let _ = a.hist.add(&o.hist);
                    let _ = a.ack_hist.add(&o.ack_hist);
                    let _ = a.conn_hist.add(&o.conn_hist);
                    if a.per_sec.len() < o.per_sec.len() {
                        a.per_sec.resize(o.per_sec.len(), 0);
                    }
                    for (x, y) in a.per_sec.iter_mut().zip(&o.per_sec) {
                        *x += y;
                    }
                    a.subs.extend(o.subs);
                    a.pubs.extend(o.pubs);
                    a
                }
            });
        }
        let mut a = all.unwrap();
        a.subs.sort_by_key(|s| s.gid);
        a.pubs.sort_by_key(|p| p.id);
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_map_back_to_sequences() {
        for base in [0u64, 1, 65533, 65534, 65535, 65536, 131069, 131070, 1 << 40] {
            for off in [0u64, 1, 100, 65533] {
                let seq = base + off;
                let pid = pid_of(seq);
                assert_ne!(pid, 0);
                assert_eq!(ack_seq(base, seq + 1, pid), Some(seq));
                assert_eq!(ack_seq(base, seq, pid), None);
            }
        }
        assert_eq!(ack_seq(0, 10, 0), None);
    }

    #[test]
    fn payload_header_both_forms() {
        for hex in [false, true] {
            let pl = Payload { hex, bodies: vec![b"x".to_vec(), b"yy".to_vec()] };
            let p = PubState {
                id: 7,
                qos: 1,
                retain: false,
                topics: Arc::new(vec![b"t/0".to_vec().into(), b"t/1".to_vec().into()]),
                active: true,
                rate: false,
                seq: 5,
                limit: 10,
                ring: vec![],
                ack_base: 0,
                acked: 0,
                inflight: 1,
                offered: 0,
                not_sent: 0,
                backlog: VecDeque::new(),
                blocked_since: 0,
                blocked_base: 0,
                forced_base: 0,
                stalls: 0,
                stalled_msgs: 0,
                done: false,
            };
            let mut b = Vec::new();
            encode_publish(&mut b, &p, &pl, true, 0xABCDEF, 0x4D51_0001);
            let f = codec::frame(&b).unwrap().unwrap();
            assert_eq!(f.total, b.len());
            let m = codec::parse_publish(f.b0, &b[f.hdr..], true).unwrap();
            assert_eq!((m.topic, m.pid), (&b"t/1"[..], 6));
            let mut h = [0u8; HEADER];
            assert!(read_header(hex, m.payload, &mut h));
            assert_eq!(split_header(&h), (7, 5, 0xABCDEF, 0x4D51_0001));
            assert_eq!(&m.payload[pl.header_len()..], b"yy");
        }
    }
}
