//! Minimal MQTT 3.1.1 / 5.0 client-side codec.
//!
//! Only what a load generator needs. Encoders append to a `Vec<u8>`; decoders
//! borrow from the receive buffer and never allocate.

pub const CONNECT: u8 = 1;
pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBSCRIBE: u8 = 8;
pub const SUBACK: u8 = 9;
pub const PINGREQ: u8 = 12;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

pub type Res<T> = Result<T, &'static str>;

pub fn put_varint(b: &mut Vec<u8>, mut v: usize) {
    debug_assert!(v <= 268_435_455);
    loop {
        let d = (v & 0x7f) as u8;
        v >>= 7;
        if v == 0 {
            b.push(d);
            return;
        }
        b.push(d | 0x80);
    }
}

/// `Ok(None)` means that more bytes are needed.
#[inline]
pub fn get_varint(b: &[u8]) -> Res<Option<(usize, usize)>> {
    let mut v = 0usize;
    for i in 0..4 {
        let Some(&d) = b.get(i) else { return Ok(None) };
        v |= ((d & 0x7f) as usize) << (7 * i);
        if d & 0x80 == 0 {
            return Ok(Some((v, i + 1)));
        }
    }
    Err("variable byte integer longer than 4 bytes")
}

pub fn put_str(b: &mut Vec<u8>, s: &[u8]) {
    b.extend_from_slice(&(s.len() as u16).to_be_bytes());
    b.extend_from_slice(s);
}

#[inline]
fn u16be(b: &[u8], i: usize) -> Res<u16> {
    match b.get(i..i + 2) {
        Some(s) => Ok(u16::from_be_bytes([s[0], s[1]])),
        None => Err("truncated packet"),
    }
}

fn wrap(b: &mut Vec<u8>, first: u8, body: &[u8]) {
    b.push(first);
    put_varint(b, body.len());
    b.extend_from_slice(body);
}

pub struct ConnectOpts<'a> {
    pub v5: bool,
    pub client_id: &'a str,
    pub clean: bool,
    pub keepalive: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    /// MQTT 5 only; for 3.1.1 `clean == false` already means "for ever".
    pub session_expiry: u32,
    /// MQTT 5 only, 0 = do not send the property.
    pub receive_max: u16,
}

pub fn connect(b: &mut Vec<u8>, o: &ConnectOpts) {
    let mut body = Vec::with_capacity(64);
    put_str(&mut body, b"MQTT");
    body.push(if o.v5 { 5 } else { 4 });
    let mut flags = 0u8;
    if o.clean {
        flags |= 0x02;
    }
    if o.username.is_some() {
        flags |= 0x80;
    }
    if o.password.is_some() {
        flags |= 0x40;
    }
    body.push(flags);
    body.extend_from_slice(&o.keepalive.to_be_bytes());
    if o.v5 {
        let mut p = Vec::new();
        if o.session_expiry > 0 {
            p.push(0x11);
            p.extend_from_slice(&o.session_expiry.to_be_bytes());
        }
        if o.receive_max > 0 {
            p.push(0x21);
            p.extend_from_slice(&o.receive_max.to_be_bytes());
        }
        put_varint(&mut body, p.len());
        body.extend_from_slice(&p);
    }
    put_str(&mut body, o.client_id.as_bytes());
    if let Some(u) = o.username {
        put_str(&mut body, u.as_bytes());
    }
    if let Some(p) = o.password {
        put_str(&mut body, p.as_bytes());
    }
    wrap(b, CONNECT << 4, &body);
}

pub fn subscribe(b: &mut Vec<u8>, v5: bool, pid: u16, filter: &[u8], qos: u8) {
    let mut body = Vec::with_capacity(filter.len() + 8);
    body.extend_from_slice(&pid.to_be_bytes());
    if v5 {
        body.push(0);
    }
    put_str(&mut body, filter);
    body.push(qos);
    wrap(b, (SUBSCRIBE << 4) | 2, &body);
}

/// The fixed header and everything in front of the application payload.
#[inline]
pub fn publish_head(
    b: &mut Vec<u8>,
    v5: bool,
    qos: u8,
    retain: bool,
    topic: &[u8],
    pid: u16,
    payload_len: usize,
) {
    let rl = 2 + topic.len() + if qos > 0 { 2 } else { 0 } + v5 as usize + payload_len;
    b.push((PUBLISH << 4) | (qos << 1) | retain as u8);
    put_varint(b, rl);
    put_str(b, topic);
    if qos > 0 {
        b.extend_from_slice(&pid.to_be_bytes());
    }
    if v5 {
        b.push(0);
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with success (the short form is valid in both versions).
#[inline]
pub fn ack(b: &mut Vec<u8>, kind: u8, pid: u16) {
    let first = (kind << 4) | if kind == PUBREL { 2 } else { 0 };
    let p = pid.to_be_bytes();
    b.extend_from_slice(&[first, 2, p[0], p[1]]);
}

pub fn pingreq(b: &mut Vec<u8>) {
    b.extend_from_slice(&[PINGREQ << 4, 0]);
}

pub fn disconnect(b: &mut Vec<u8>) {
    b.extend_from_slice(&[DISCONNECT << 4, 0]);
}

/// One complete control packet at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub b0: u8,
    pub hdr: usize,
    pub total: usize,
}

#[inline]
pub fn frame(b: &[u8]) -> Res<Option<Frame>> {
    if b.len() < 2 {
        return Ok(None);
    }
    match get_varint(&b[1..])? {
        None => Ok(None),
        Some((rl, n)) => {
            let total = 1 + n + rl;
            if b.len() < total {
                return Ok(None);
            }
            Ok(Some(Frame { b0: b[0], hdr: 1 + n, total }))
        }
    }
}

/// Total length of the packet at the front, once its length field is complete.
pub fn needed(b: &[u8]) -> Option<usize> {
    match get_varint(b.get(1..)?) {
        Ok(Some((rl, n))) => Some(1 + n + rl),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    pub pid: u16,
    pub topic: &'a [u8],
    pub payload: &'a [u8],
}

#[inline]
pub fn parse_publish(b0: u8, body: &[u8], v5: bool) -> Res<Publish<'_>> {
    let qos = (b0 >> 1) & 3;
    if qos == 3 {
        return Err("PUBLISH with QoS 3");
    }
    let tl = u16be(body, 0)? as usize;
    let mut i = 2 + tl;
    if body.len() < i {
        return Err("PUBLISH topic longer than the packet");
    }
    let topic = &body[2..i];
    let mut pid = 0;
    if qos > 0 {
        pid = u16be(body, i)?;
        if pid == 0 {
            return Err("PUBLISH with packet id 0");
        }
        i += 2;
    }
    if v5 {
        let Some((pl, n)) = get_varint(body.get(i..).ok_or("truncated PUBLISH")?)? else {
            return Err("truncated PUBLISH properties");
        };
        i += n + pl;
    }
    let payload = body.get(i..).ok_or("PUBLISH properties longer than the packet")?;
    Ok(Publish { qos, dup: b0 & 8 != 0, retain: b0 & 1 != 0, pid, topic, payload })
}

/// Packet id and reason code (0 where the packet is the short form).
#[inline]
pub fn parse_ack(body: &[u8]) -> Res<(u16, u8)> {
    Ok((u16be(body, 0)?, body.get(2).copied().unwrap_or(0)))
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Connack {
    pub session_present: bool,
    pub code: u8,
    pub receive_max: Option<u16>,
    pub max_qos: Option<u8>,
    pub max_packet: Option<u32>,
    pub retain_available: Option<u8>,
    pub server_keepalive: Option<u16>,
}

pub fn parse_connack(body: &[u8], v5: bool) -> Res<Connack> {
    if body.len() < 2 {
        return Err("truncated CONNACK");
    }
    let mut c = Connack { session_present: body[0] & 1 != 0, code: body[1], ..Default::default() };
    if v5 && body.len() > 2 {
        let Some((pl, n)) = get_varint(&body[2..])? else { return Err("truncated CONNACK properties") };
        let p = body.get(2 + n..2 + n + pl).ok_or("truncated CONNACK properties")?;
        each_property(p, |id, v| match (id, v) {
            (0x21, Prop::U16(x)) => c.receive_max = Some(x),
            (0x24, Prop::U8(x)) => c.max_qos = Some(x),
            (0x25, Prop::U8(x)) => c.retain_available = Some(x),
            (0x27, Prop::U32(x)) => c.max_packet = Some(x),
            (0x13, Prop::U16(x)) => c.server_keepalive = Some(x),
            _ => {}
        })?;
    }
    Ok(c)
}

/// Packet id and the first reason code of a SUBACK.
pub fn parse_suback(body: &[u8], v5: bool) -> Res<(u16, u8)> {
    let pid = u16be(body, 0)?;
    let mut i = 2;
    if v5 {
        let Some((pl, n)) = get_varint(&body[2..])? else { return Err("truncated SUBACK") };
        i += n + pl;
    }
    Ok((pid, *body.get(i).ok_or("SUBACK without a reason code")?))
}

pub enum Prop {
    U8(u8),
    U16(u16),
    U32(u32),
    Other,
}

pub fn each_property(mut p: &[u8], mut f: impl FnMut(u8, Prop)) -> Res<()> {
    const E: &str = "truncated property";
    while !p.is_empty() {
        let id = p[0];
        p = &p[1..];
        let used = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => {
                f(id, Prop::U8(*p.first().ok_or(E)?));
                1
            }
            0x13 | 0x21 | 0x22 | 0x23 => {
                f(id, Prop::U16(u16be(p, 0)?));
                2
            }
            0x02 | 0x11 | 0x18 | 0x27 => {
                let s = p.get(..4).ok_or(E)?;
                f(id, Prop::U32(u32::from_be_bytes([s[0], s[1], s[2], s[3]])));
                4
            }
            0x0B => {
                let (_, n) = get_varint(p)?.ok_or(E)?;
                f(id, Prop::Other);
                n
            }
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => {
                f(id, Prop::Other);
                2 + u16be(p, 0)? as usize
            }
            0x26 => {
                f(id, Prop::Other);
                let k = 2 + u16be(p, 0)? as usize;
                k + 2 + u16be(p, k)? as usize
            }
            _ => return Err("unknown property"),
        };
        p = p.get(used..).ok_or(E)?;
    }
    Ok(())
}

pub fn reason(code: u8, v5: bool) -> &'static str {
    if !v5 {
        return match code {
            1 => "unacceptable protocol version",
            2 => "identifier rejected",
            3 => "server unavailable",
            4 => "bad user name or password",
            5 => "not authorized",
            _ => "unknown return code",
        };
    }
    match code {
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "unsupported protocol version",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8D => "keep alive timeout",
        0x8E => "session taken over",
        0x90 => "topic name invalid",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9F => "connection rate exceeded",
        _ => "unknown reason code",
    }
}

/// Does `filter` match `topic` (both without `$share`)?
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+')) {
        return false;
    }
    let mut f = filter.split('/');
    let mut t = topic.split('/');
    loop {
        match (f.next(), t.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_limits() {
        for (v, n) in
            [(0, 1), (127, 1), (128, 2), (16383, 2), (16384, 3), (2097151, 3), (2097152, 4), (268435455, 4)]
        {
            let mut b = Vec::new();
            put_varint(&mut b, v);
            assert_eq!(b.len(), n);
            assert_eq!(get_varint(&b), Ok(Some((v, n))));
            for cut in 0..n {
                assert_eq!(get_varint(&b[..cut]), Ok(None));
            }
        }
        assert!(get_varint(&[0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn frames_partial_and_back_to_back() {
        let mut b = Vec::new();
        publish_head(&mut b, false, 1, false, b"a/b", 7, 300);
        b.extend_from_slice(&[9u8; 300]);
        let one = b.len();
        pingreq(&mut b);
        for cut in 0..one {
            assert_eq!(frame(&b[..cut]).unwrap(), None, "cut at {cut}");
        }
        let f = frame(&b).unwrap().unwrap();
        assert_eq!((f.total, f.hdr, f.b0), (one, 3, 0x32));
        assert_eq!(needed(&b[..3]), Some(one));
        assert_eq!(needed(&b[..2]), None);
        let g = frame(&b[one..]).unwrap().unwrap();
        assert_eq!((g.b0, g.total), (0xC0, 2));
    }

    #[test]
    fn publish_round_trip() {
        for v5 in [false, true] {
            for qos in 0..=2 {
                for retain in [false, true] {
                    let mut b = Vec::new();
                    publish_head(&mut b, v5, qos, retain, b"bench/t0", 513, 5);
                    b.extend_from_slice(b"hello");
                    let f = frame(&b).unwrap().unwrap();
                    assert_eq!(f.total, b.len());
                    let p = parse_publish(f.b0, &b[f.hdr..f.total], v5).unwrap();
                    assert_eq!(
                        p,
                        Publish {
                            qos,
                            dup: false,
                            retain,
                            pid: if qos > 0 { 513 } else { 0 },
                            topic: b"bench/t0",
                            payload: b"hello"
                        }
                    );
                }
            }
        }
    }

    #[test]
    fn publish_with_properties_and_dup() {
        // topic "t", id 1, properties: expiry 4 bytes + user property, payload "x"
        let props = [0x02, 0, 0, 0, 9, 0x26, 0, 1, b'k', 0, 1, b'v'];
        let mut body = vec![0, 1, b't', 0, 1, props.len() as u8];
        body.extend_from_slice(&props);
        body.push(b'x');
        let p = parse_publish(0x3A, &body, true).unwrap();
        assert!(p.dup && p.qos == 1 && p.payload == b"x");
    }

    #[test]
    fn publish_malformed() {
        assert!(parse_publish(0x36, &[0, 1, b't'], false).is_err()); // QoS 3
        assert!(parse_publish(0x30, &[0, 9, b't'], false).is_err()); // topic too long
        assert!(parse_publish(0x32, &[0, 1, b't', 0], false).is_err()); // no packet id
        assert!(parse_publish(0x32, &[0, 1, b't', 0, 0], false).is_err()); // packet id 0
        assert!(parse_publish(0x30, &[0, 1, b't', 9], true).is_err()); // properties too long
        assert!(parse_publish(0x30, &[], false).is_err());
    }

    #[test]
    fn connect_bytes_v311() {
        let mut b = Vec::new();
        connect(
            &mut b,
            &ConnectOpts {
                v5: false,
                client_id: "c",
                clean: true,
                keepalive: 60,
                username: Some("u"),
                password: Some("pw"),
                session_expiry: 5,
                receive_max: 5,
            },
        );
        assert_eq!(
            b,
            [
                0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 4, 0xC2, 0, 60, 0, 1, b'c', 0, 1, b'u', 0, 2, b'p',
                b'w'
            ]
        );
    }

    #[test]
    fn connect_bytes_v5() {
        let mut b = Vec::new();
        connect(
            &mut b,
            &ConnectOpts {
                v5: true,
                client_id: "c",
                clean: false,
                keepalive: 0,
                username: None,
                password: None,
                session_expiry: 3600,
                receive_max: 20,
            },
        );
        assert_eq!(
            b,
            [
                0x10, 22, 0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 0, 8, 0x11, 0, 0, 0x0E, 0x10, 0x21, 0, 20,
                0, 1, b'c'
            ]
        );
    }

    #[test]
    fn subscribe_bytes() {
        let mut b = Vec::new();
        subscribe(&mut b, false, 1, b"a/#", 1);
        assert_eq!(b, [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'#', 1]);
        b.clear();
        subscribe(&mut b, true, 1, b"a/#", 2);
        assert_eq!(b, [0x82, 9, 0, 1, 0, 0, 3, b'a', b'/', b'#', 2]);
    }

    #[test]
    fn acks() {
        let mut b = Vec::new();
        ack(&mut b, PUBACK, 0x0102);
        ack(&mut b, PUBREL, 3);
        assert_eq!(b, [0x40, 2, 1, 2, 0x62, 2, 0, 3]);
        assert_eq!(parse_ack(&[1, 2]), Ok((258, 0)));
        assert_eq!(parse_ack(&[1, 2, 0x97, 0]), Ok((258, 0x97)));
        assert!(parse_ack(&[1]).is_err());
    }

    #[test]
    fn connack_forms() {
        let c = parse_connack(&[1, 0], false).unwrap();
        assert!(c.session_present && c.code == 0 && c.receive_max.is_none());
        assert_eq!(parse_connack(&[0, 5], false).unwrap().code, 5);
        let props = [0x21, 0, 20, 0x24, 1, 0x27, 0, 1, 0, 0, 0x13, 0, 30, 0x12, 0, 2, b'i', b'd'];
        let mut body = vec![0, 0, props.len() as u8];
        body.extend_from_slice(&props);
        let c = parse_connack(&body, true).unwrap();
        assert_eq!(
            (c.receive_max, c.max_qos, c.max_packet, c.server_keepalive),
            (Some(20), Some(1), Some(65536), Some(30))
        );
        assert!(parse_connack(&[0], true).is_err());
        assert!(parse_connack(&[0, 0, 5, 0x21], true).is_err());
        assert!(parse_connack(&[0, 0, 1, 0x7f], true).is_err());
    }

    #[test]
    fn suback_forms() {
        assert_eq!(parse_suback(&[0, 9, 0x80], false), Ok((9, 0x80)));
        assert_eq!(parse_suback(&[0, 9, 0, 1], true), Ok((9, 1)));
        assert_eq!(parse_suback(&[0, 9, 4, 0x1F, 0, 1, b'x', 2], true), Ok((9, 2)));
        assert!(parse_suback(&[0, 9], false).is_err());
    }

    #[test]
    fn filters() {
        for (f, t, want) in [
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("bench/#", "bench", true),
            ("bench/#", "bench/a/b", true),
            ("bench/+", "bench/a/b", false),
            ("a/+/c", "a/b/c", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(matches(f, t), want, "{f} {t}");
        }
    }
}
