//! Thin wrappers over epoll, sockets, clocks and /proc.

use std::fs;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;

pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
pub const ERR: u32 = libc::EPOLLERR as u32;
pub const HUP: u32 = libc::EPOLLHUP as u32;
pub const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub const ET: u32 = libc::EPOLLET as u32;

#[inline]
fn clock(id: libc::clockid_t) -> u64 {
    let mut t: libc::timespec = unsafe { mem::zeroed() };
    unsafe { libc::clock_gettime(id, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[inline]
pub fn now_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

pub fn process_cpu_ns() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of another thread of this process.
pub fn thread_cpu_ns(t: libc::pthread_t) -> u64 {
    let mut id: libc::clockid_t = 0;
    if unsafe { libc::pthread_getcpuclockid(t, &mut id) } != 0 {
        return 0;
    }
    clock(id)
}

pub fn nap_ns(ns: u64) {
    let t = libc::timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ };
    unsafe { libc::nanosleep(&t, std::ptr::null_mut()) };
}

/// Let short sleeps end on time (the default slack is 50 us).
pub fn tight_timers() {
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000usize, 0, 0, 0) };
}

fn check(r: libc::c_int) -> io::Result<libc::c_int> {
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

pub struct Epoll {
    fd: RawFd,
    pwait2: bool,
}

pub type Event = libc::epoll_event;

impl Epoll {
    pub fn new() -> io::Result<Self> {
        Ok(Epoll { fd: check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?, pwait2: true })
    }
    fn ctl(&self, op: i32, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut e = Event { events, u64: data };
        check(unsafe { libc::epoll_ctl(self.fd, op, fd, &mut e) }).map(|_| ())
    }
    pub fn add(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd, events, data)
    }
    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd, events, data)
    }
    pub fn del(&self, fd: RawFd) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }
    /// Waits up to `timeout` nanoseconds; EINTR counts as no event.
    pub fn wait(&mut self, ev: &mut [Event], timeout: u64) -> io::Result<usize> {
        if self.pwait2 && timeout > 0 {
            let t = libc::timespec {
                tv_sec: (timeout / 1_000_000_000) as _,
                tv_nsec: (timeout % 1_000_000_000) as _,
            };
            let r = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.fd,
                    ev.as_mut_ptr(),
                    ev.len() as libc::c_int,
                    &t as *const libc::timespec,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if r >= 0 {
                return Ok(r as usize);
            }
            match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::EINTR) => return Ok(0),
                e if e.raw_os_error() == Some(libc::ENOSYS) => self.pwait2 = false,
                e => return Err(e),
            }
        }
        let ms = timeout.div_ceil(1_000_000).min(60_000) as i32;
        let r = unsafe { libc::epoll_wait(self.fd, ev.as_mut_ptr(), ev.len() as i32, ms) };
        if r >= 0 {
            return Ok(r as usize);
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EINTR) => Ok(0),
            e => Err(e),
        }
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        close(self.fd);
    }
}

pub fn eventfd() -> io::Result<RawFd> {
    check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

pub fn eventfd_set(fd: RawFd) {
    let one = 1u64;
    unsafe { libc::write(fd, &one as *const u64 as *const _, 8) };
}

pub fn eventfd_clear(fd: RawFd) {
    let mut v = 0u64;
    unsafe { libc::read(fd, &mut v as *mut u64 as *mut _, 8) };
}

pub fn close(fd: RawFd) {
    unsafe { libc::close(fd) };
}

#[inline]
pub fn recv(fd: RawFd, b: &mut [u8]) -> io::Result<usize> {
    let r = unsafe { libc::recv(fd, b.as_mut_ptr() as *mut _, b.len(), 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as usize) }
}

/// Asks the kernel to stamp what arrives (CLOCK_REALTIME).
pub fn want_stamps(fd: RawFd) -> bool {
    setopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).is_ok()
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, in ns.
pub fn real_offset() -> u64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..5 {
        let a = now_ns();
        let r = clock(libc::CLOCK_REALTIME);
        let b = now_ns();
        if b - a < best.0 {
            best = (b - a, r.wrapping_sub(a + (b - a) / 2));
        }
    }
    best.1
}

/// As `recv`, with the arrival stamp of the last segment read (0 where there is none).
#[inline]
pub fn recv_stamped(fd: RawFd, b: &mut [u8]) -> io::Result<(usize, u64)> {
    #[repr(C)]
    struct Ctl {
        hdr: libc::cmsghdr,
        ts: libc::timespec,
        spare: [u64; 4],
    }
    let mut iov = libc::iovec { iov_base: b.as_mut_ptr() as *mut _, iov_len: b.len() };
    let mut ctl = mem::MaybeUninit::<Ctl>::uninit();
    let mut m: libc::msghdr = unsafe { mem::zeroed() };
    m.msg_iov = &mut iov;
    m.msg_iovlen = 1;
    m.msg_control = ctl.as_mut_ptr() as *mut _;
    m.msg_controllen = mem::size_of::<Ctl>() as _;
    let r = unsafe { libc::recvmsg(fd, &mut m, 0) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut stamp = 0;
    if m.msg_controllen as usize >= mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::timespec>() {
        // the kernel has written header and stamp
        let c = unsafe { &*ctl.as_ptr() };
        if c.hdr.cmsg_level == libc::SOL_SOCKET && c.hdr.cmsg_type == libc::SCM_TIMESTAMPNS {
            stamp = c.ts.tv_sec as u64 * 1_000_000_000 + c.ts.tv_nsec as u64;
        }
    }
    Ok((r as usize, stamp))
}

#[inline]
pub fn send(fd: RawFd, b: &[u8]) -> io::Result<usize> {
    let r = unsafe { libc::send(fd, b.as_ptr() as *const _, b.len(), libc::MSG_NOSIGNAL) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as usize) }
}

pub fn setopt(fd: RawFd, level: i32, name: i32, v: i32) -> io::Result<()> {
    check(unsafe { libc::setsockopt(fd, level, name, &v as *const i32 as *const _, 4) }).map(|_| ())
}

pub fn so_error(fd: RawFd) -> i32 {
    let mut v = 0i32;
    let mut l = 4u32;
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut v as *mut i32 as *mut _, &mut l) };
    v
}

fn with_addr<R>(a: &SocketAddr, f: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> R) -> R {
    match a {
        SocketAddr::V4(a) => {
            let mut s: libc::sockaddr_in = unsafe { mem::zeroed() };
            s.sin_family = libc::AF_INET as _;
            s.sin_port = a.port().to_be();
            s.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
            f(&s as *const _ as *const _, mem::size_of_val(&s) as _)
        }
        SocketAddr::V6(a) => {
            let mut s: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            s.sin6_family = libc::AF_INET6 as _;
            s.sin6_port = a.port().to_be();
            s.sin6_addr.s6_addr = a.ip().octets();
            s.sin6_scope_id = a.scope_id();
            f(&s as *const _ as *const _, mem::size_of_val(&s) as _)
        }
    }
}

/// What a segment holds on an Ethernet.
const SEGMENT_BYTES: i32 = 1460;

/// Starts a non-blocking connect. With a receive buffer of `rcvbuf` bytes (0: the system's default) the segments are those of a
/// network: loopback's, of 64 KiB, are as large as the window of a small buffer, and where the window is a little smaller, the
/// sender's kernel waits for its probe timer (200 ms) before each one.
pub fn connect(to: &SocketAddr, src: Option<Ipv4Addr>, rcvbuf: u32) -> io::Result<RawFd> {
    let fam = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd =
        check(unsafe { libc::socket(fam, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    let go = || -> io::Result<()> {
        setopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if rcvbuf > 0 {
            setopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, rcvbuf as i32)?;
            setopt(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, SEGMENT_BYTES)?;
        }
        if let Some(ip) = src {
            // choose the port at connect time, so that it need be unique per 4-tuple only
            setopt(fd, libc::IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, 1)?;
            let a = SocketAddr::from((ip, 0));
            check(with_addr(&a, |p, l| unsafe { libc::bind(fd, p, l) }))?;
        }
        match check(with_addr(to, |p, l| unsafe { libc::connect(fd, p, l) })) {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            Err(e) => Err(e),
        }
    };
    match go() {
        Ok(()) => Ok(fd),
        Err(e) => {
            close(fd);
            Err(e)
        }
    }
}

/// Raises the limit of open files as far as allowed; returns what is in force.
pub fn raise_nofile(want: u64) -> u64 {
    let mut r: libc::rlimit = unsafe { mem::zeroed() };
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut r) };
    if r.rlim_cur >= want {
        return r.rlim_cur;
    }
    let top = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|s| s.trim().parse().ok())
        .unwrap_or(1 << 20);
    let want = want.min(top);
    if r.rlim_max < want {
        let n = libc::rlimit { rlim_cur: want, rlim_max: want };
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &n) } == 0 {
            return want;
        }
    }
    r.rlim_cur = r.rlim_max.min(want);
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &r) };
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut r) };
    r.rlim_cur
}

pub fn pin(cpus: &[usize]) -> io::Result<()> {
    unsafe {
        let mut s: libc::cpu_set_t = mem::zeroed();
        for &c in cpus {
            libc::CPU_SET(c, &mut s);
        }
        check(libc::sched_setaffinity(0, mem::size_of_val(&s), &s)).map(|_| ())
    }
}

pub fn random_u32() -> u32 {
    let mut b = [0u8; 4];
    unsafe { libc::getrandom(b.as_mut_ptr() as *mut _, 4, 0) };
    u32::from_ne_bytes(b)
}

// ---- /proc ----

/// User and system CPU seconds of a process with all its threads, also those that have ended.
pub fn pid_cpu(pid: u32) -> Option<(f64, f64)> {
    let s = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &s[s.rfind(')')? + 2..];
    let f: Vec<&str> = rest.split(' ').collect();
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Some((f.get(11)?.parse::<f64>().ok()? / hz, f.get(12)?.parse::<f64>().ok()? / hz))
}

fn kb_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Mem {
    pub rss_kb: u64,
    pub hwm_kb: u64,
    pub pss_kb: u64,
    pub threads: u64,
}

pub fn pid_mem(pid: u32) -> Option<Mem> {
    let s = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Mem {
        rss_kb: kb_field(&s, "VmRSS:")?,
        hwm_kb: kb_field(&s, "VmHWM:").unwrap_or(0),
        pss_kb: 0,
        threads: kb_field(&s, "Threads:").unwrap_or(0),
    })
}

/// As `pid_mem`, with RSS and PSS from smaps_rollup (exact, but it walks the page tables).
pub fn pid_mem_exact(pid: u32) -> Option<Mem> {
    let mut m = pid_mem(pid)?;
    if let Ok(s) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        m.rss_kb = kb_field(&s, "Rss:").unwrap_or(m.rss_kb);
        m.pss_kb = kb_field(&s, "Pss:").unwrap_or(0);
    }
    Some(m)
}

/// Makes VmHWM start again from the present RSS.
pub fn reset_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// CPU seconds since boot, all CPUs together.
#[derive(Debug, Default, Clone, Copy)]
pub struct Machine {
    pub idle: f64,
    pub steal: f64,
    pub cpus: f64,
}

pub fn machine() -> Machine {
    let s = fs::read_to_string("/proc/stat").unwrap_or_default();
    let v: Vec<f64> =
        s.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|x| x.parse().ok()).collect();
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Machine {
        idle: (v.get(3).unwrap_or(&0.0) + v.get(4).unwrap_or(&0.0)) / hz,
        steal: v.get(7).unwrap_or(&0.0) / hz,
        cpus: s.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count() as f64,
    }
}

pub fn congestion_control() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map(|s| s.trim().into())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_of_self() {
        let pid = std::process::id();
        assert!(pid_cpu(pid).is_some());
        let m = pid_mem_exact(pid).unwrap();
        assert!(m.rss_kb > 0 && m.hwm_kb > 0);
        assert!(machine().cpus >= 1.0);
        assert!(pid_cpu(u32::MAX).is_none());
    }
}
