//! The physical limit: a bare epoll server that does no more than the socket
//! work of a fan-out. Every PUBLISH read in one round of events is written, byte
//! for byte, to all subscribed sockets with one write each.

use crate::codec;
use crate::sys::{self, Epoll, Event};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::thread::JoinHandle;

const EV_LISTEN: u64 = u64::MAX;
/// More than this pending towards one subscriber stops the reading of publishers.
const HIGH: usize = 4 << 20;

struct Conn {
    fd: RawFd,
    sub: bool,
    v5: bool,
    carry: Vec<u8>,
    out: Vec<u8>,
    pos: usize,
    mask: u32,
}

pub struct Server {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    join: Option<JoinHandle<Result<(), String>>>,
}

impl Server {
    pub fn start() -> io::Result<Server> {
        let l = TcpListener::bind("127.0.0.1:0")?;
        // a larger backlog than that of the standard library
        unsafe { libc::listen(l.as_raw_fd(), 4096) };
        l.set_nonblocking(true)?;
        let addr = l.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let s = stop.clone();
        let join = std::thread::Builder::new().name("limit-server".into()).spawn(move || run(l, &s))?;
        Ok(Server { addr, stop, join: Some(join) })
    }

    pub fn cpu_ns(&self) -> u64 {
        self.join.as_ref().map_or(0, |j| sys::thread_cpu_ns(j.as_pthread_t()))
    }

    pub fn finish(mut self) -> Result<(), String> {
        self.stop.store(true, SeqCst);
        self.join.take().unwrap().join().map_err(|_| "limit server panicked".to_string())?
    }
}

fn arm(ep: &Epoll, c: &mut Conn, i: usize, hold: bool) {
    let want = if hold && !c.sub { 0 } else { sys::IN } | if c.pos < c.out.len() { sys::OUT } else { 0 };
    if want != c.mask {
        c.mask = want;
        let _ = ep.modify(c.fd, want, i as u64);
    }
}

fn flush(c: &mut Conn) -> bool {
    while c.pos < c.out.len() {
        match sys::send(c.fd, &c.out[c.pos..]) {
            Ok(n) => c.pos += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
    c.out.clear();
    c.pos = 0;
    true
}

fn write(c: &mut Conn, mut b: &[u8]) -> bool {
    if c.pos == c.out.len() {
        while !b.is_empty() {
            match sys::send(c.fd, b) {
                Ok(n) => b = &b[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        c.out.clear();
        c.pos = 0;
    }
    c.out.extend_from_slice(b);
    true
}

fn run(l: TcpListener, stop: &AtomicBool) -> Result<(), String> {
    let mut ep = Epoll::new().map_err(|e| e.to_string())?;
    ep.add(l.as_raw_fd(), sys::IN, EV_LISTEN).map_err(|e| e.to_string())?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut subs: Vec<usize> = Vec::new();
    let mut ev = vec![Event { events: 0, u64: 0 }; 1024];
    let mut buf = vec![0u8; 512 * 1024];
    let mut batch: Vec<u8> = Vec::new();
    let mut reply: Vec<u8> = Vec::new();
    let mut hold = false;
    while !stop.load(Relaxed) {
        let n = ep.wait(&mut ev, 100_000_000).map_err(|e| e.to_string())?;
        batch.clear();
        for e in &ev[..n] {
            let (data, flags) = (e.u64, e.events);
            if data == EV_LISTEN {
                loop {
                    let fd = unsafe {
                        libc::accept4(
                            l.as_raw_fd(),
                            std::ptr::null_mut(),
                            std::ptr::null_mut(),
                            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                        )
                    };
                    if fd < 0 {
                        break;
                    }
                    let _ = sys::setopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
                    let _ = ep.add(fd, sys::IN, conns.len() as u64);
                    conns.push(Some(Conn {
                        fd,
                        sub: false,
                        v5: false,
                        carry: Vec::new(),
                        out: Vec::new(),
                        pos: 0,
                        mask: sys::IN,
                    }));
                }
                continue;
            }
            let i = data as usize;
            let Some(c) = conns[i].as_mut() else { continue };
            let mut alive = true;
            if flags & sys::OUT != 0 {
                alive = flush(c);
            }
            if alive && flags & (sys::IN | sys::HUP | sys::ERR) != 0 && c.mask & sys::IN != 0 {
                let k = c.carry.len();
                if buf.len() < k + 262_144 {
                    buf.resize(k + 262_144, 0);
                }
                buf[..k].copy_from_slice(&c.carry);
                match sys::recv(c.fd, &mut buf[k..]) {
                    Ok(0) => alive = false,
                    Ok(m) => {
                        let all = &buf[..k + m];
                        let mut p = 0;
                        reply.clear();
                        while let Some(f) = codec::frame(&all[p..]).map_err(|e| e.to_string())? {
                            let body = &all[p + f.hdr..p + f.total];
                            match f.b0 >> 4 {
                                codec::PUBLISH => {
                                    if f.b0 & 6 == 2 {
                                        let t = 2 + u16::from_be_bytes([body[0], body[1]]) as usize;
                                        codec::ack(
                                            &mut reply,
                                            codec::PUBACK,
                                            u16::from_be_bytes([body[t], body[t + 1]]),
                                        );
                                    }
                                    batch.extend_from_slice(&all[p..p + f.total]);
                                }
                                codec::CONNECT => {
                                    c.v5 = body[6] == 5;
                                    reply.extend_from_slice(if c.v5 {
                                        &[0x20, 3, 0, 0, 0]
                                    } else {
                                        &[0x20, 2, 0, 0]
                                    });
                                }
                                codec::SUBSCRIBE => {
                                    let q = body[body.len() - 1] & 3;
                                    if c.v5 {
                                        reply.extend_from_slice(&[0x90, 4, body[0], body[1], 0, q]);
                                    } else {
                                        reply.extend_from_slice(&[0x90, 3, body[0], body[1], q]);
                                    }
                                    if !c.sub {
                                        c.sub = true;
                                        subs.push(i);
                                    }
                                }
                                codec::PINGREQ => reply.extend_from_slice(&[0xD0, 0]),
                                codec::DISCONNECT => alive = false,
                                _ => {}
                            }
                            p += f.total;
                        }
                        let rest = all[p..].len();
                        c.carry.clear();
                        if rest > 0 {
                            c.carry.extend_from_slice(&all[p..]);
                        }
                        if alive && !reply.is_empty() {
                            alive = write(c, &reply);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => alive = false,
                }
            }
            if alive {
                arm(&ep, c, i, hold);
            } else {
                sys::close(c.fd);
                if c.sub {
                    subs.retain(|&s| s != i);
                }
                conns[i] = None;
            }
        }
        let mut most = 0;
        if !batch.is_empty() || hold {
            let mut dead = Vec::new();
            for &i in &subs {
                let c = conns[i].as_mut().unwrap();
                if !batch.is_empty() && !write(c, &batch) {
                    dead.push(i);
                    continue;
                }
                most = most.max(c.out.len() - c.pos);
                arm(&ep, c, i, hold);
            }
            for i in dead {
                sys::close(conns[i].take().unwrap().fd);
                subs.retain(|&s| s != i);
            }
            let h = most > if hold { HIGH / 2 } else { HIGH };
            if h != hold {
                hold = h;
                for (i, c) in conns.iter_mut().enumerate() {
                    if let Some(c) = c {
                        arm(&ep, c, i, hold);
                    }
                }
            }
        }
    }
    for c in conns.into_iter().flatten() {
        sys::close(c.fd);
    }
    Ok(())
}
