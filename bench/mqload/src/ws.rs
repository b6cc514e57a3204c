//! A tiny WebSocket client: the opening handshake and RFC 6455 framing.
//!
//! All connections use the sample nonce of RFC 6455, whose accept value is
//! known, so that the answer can be checked without a SHA-1 implementation.

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub fn request(host: &str, port: u16, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    .into_bytes()
}

/// Length of a complete and correct 101 answer, `None` where more bytes are needed.
pub fn response(b: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = b.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if b.len() > 16384 { Err("WebSocket answer too long".into()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&b[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or("");
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("WebSocket upgrade refused: {status}"));
    }
    let (mut accept, mut proto) = (false, false);
    for l in lines {
        if let Some((k, v)) = l.split_once(':') {
            if k.eq_ignore_ascii_case("sec-websocket-accept") {
                accept = v.trim() == ACCEPT;
            } else if k.eq_ignore_ascii_case("sec-websocket-protocol") {
                proto = v.trim().eq_ignore_ascii_case("mqtt");
            }
        }
    }
    if !accept {
        return Err("WebSocket answer with a wrong Sec-WebSocket-Accept".into());
    }
    if !proto {
        return Err("WebSocket answer does not select subprotocol mqtt".into());
    }
    Ok(Some(end + 4))
}

/// Appends one masked frame with FIN set.
pub fn encode(out: &mut Vec<u8>, opcode: u8, data: &[u8], mask: u32) {
    out.push(0x80 | opcode);
    match data.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n <= 0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let m = mask.to_ne_bytes();
    out.extend_from_slice(&m);
    let start = out.len();
    out.extend_from_slice(data);
    let m8 = u64::from_ne_bytes([m[0], m[1], m[2], m[3], m[0], m[1], m[2], m[3]]);
    let body = &mut out[start..];
    let mut it = body.chunks_exact_mut(8);
    for c in &mut it {
        let v = u64::from_ne_bytes(c.try_into().unwrap()) ^ m8;
        c.copy_from_slice(&v.to_ne_bytes());
    }
    for (i, c) in it.into_remainder().iter_mut().enumerate() {
        *c ^= m[i & 3];
    }
}

#[derive(Default)]
pub struct Decoder {
    head: [u8; 10],
    have: usize,
    left: u64,
    opcode: u8,
    in_payload: bool,
    ctl: Vec<u8>,
}

#[derive(Default)]
pub struct Decoded {
    pub pings: Vec<Vec<u8>>,
    pub closed: Option<u16>,
}

impl Decoder {
    /// Takes raw bytes and appends the data payloads to `out`.
    pub fn feed(&mut self, mut b: &[u8], out: &mut Vec<u8>) -> Result<Decoded, &'static str> {
        let mut d = Decoded::default();
        loop {
            if !self.in_payload {
                // header of 2, 4 or 10 bytes (server frames are not masked)
                loop {
                    let need = if self.have < 2 {
                        2
                    } else {
                        match self.head[1] & 0x7f {
                            126 => 4,
                            127 => 10,
                            _ => 2,
                        }
                    };
                    if self.have == need {
                        break;
                    }
                    let n = (need - self.have).min(b.len());
                    if n == 0 {
                        return Ok(d);
                    }
                    self.head[self.have..self.have + n].copy_from_slice(&b[..n]);
                    self.have += n;
                    b = &b[n..];
                }
                if self.head[1] & 0x80 != 0 {
                    return Err("masked WebSocket frame from the server");
                }
                if self.head[0] & 0x70 != 0 {
                    return Err("WebSocket frame with reserved bits");
                }
                self.opcode = self.head[0] & 0x0f;
                if self.opcode == 1 {
                    return Err("WebSocket text frame");
                }
                self.left = match self.head[1] {
                    126 => u16::from_be_bytes([self.head[2], self.head[3]]) as u64,
                    127 => u64::from_be_bytes(self.head[2..10].try_into().unwrap()),
                    n => n as u64,
                };
                self.in_payload = true;
                self.ctl.clear();
            }
            let n = (self.left).min(b.len() as u64) as usize;
            if self.opcode >= 8 {
                self.ctl.extend_from_slice(&b[..n]);
            } else {
                out.extend_from_slice(&b[..n]);
            }
            b = &b[n..];
            self.left -= n as u64;
            if self.left > 0 {
                return Ok(d);
            }
            self.in_payload = false;
            self.have = 0;
            match self.opcode {
                9 => d.pings.push(self.ctl.clone()),
                8 => {
                    let c = if self.ctl.len() >= 2 {
                        u16::from_be_bytes([self.ctl[0], self.ctl[1]])
                    } else {
                        1005
                    };
                    d.closed = Some(c);
                }
                _ => {}
            }
            if b.is_empty() {
                return Ok(d);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(op: u8, data: &[u8]) -> Vec<u8> {
        let mut v = vec![0x80 | op];
        match data.len() {
            n if n < 126 => v.push(n as u8),
            n if n <= 0xffff => {
                v.push(126);
                v.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                v.push(127);
                v.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        v.extend_from_slice(data);
        v
    }

    #[test]
    fn encode_masks() {
        for len in [0usize, 1, 7, 8, 9, 125, 126, 1000, 70000] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut out = Vec::new();
            encode(&mut out, 2, &data, 0x1234_5678);
            let h = match len {
                n if n < 126 => 2,
                n if n <= 0xffff => 4,
                _ => 10,
            };
            assert_eq!(out.len(), h + 4 + len);
            assert_eq!(out[0], 0x82);
            assert!(out[1] & 0x80 != 0);
            let m: [u8; 4] = out[h..h + 4].try_into().unwrap();
            let back: Vec<u8> = out[h + 4..].iter().enumerate().map(|(i, b)| b ^ m[i & 3]).collect();
            assert_eq!(back, data);
        }
    }

    #[test]
    fn decode_in_every_split() {
        let mut raw = Vec::new();
        let big = vec![5u8; 300];
        raw.extend(server_frame(2, b"abc"));
        raw.extend(server_frame(9, b"hi"));
        raw.extend(server_frame(2, &big));
        raw.extend(server_frame(2, b""));
        raw.extend(server_frame(0, b"tail"));
        raw.extend(server_frame(8, &[3, 0xE8]));
        let mut want = b"abc".to_vec();
        want.extend(&big);
        want.extend(b"tail");
        for step in [1usize, 2, 3, 5, 100, 10_000] {
            let mut d = Decoder::default();
            let (mut out, mut pings, mut closed) = (Vec::new(), 0, None);
            for c in raw.chunks(step) {
                let r = d.feed(c, &mut out).unwrap();
                pings += r.pings.len();
                closed = closed.or(r.closed);
            }
            assert_eq!(out, want);
            assert_eq!((pings, closed), (1, Some(1000)));
        }
    }

    #[test]
    fn decode_rejects_masked() {
        let mut f = Vec::new();
        encode(&mut f, 2, b"x", 1);
        assert!(Decoder::default().feed(&f, &mut Vec::new()).is_err());
    }

    #[test]
    fn handshake_answers() {
        let ok = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSEC-WEBSOCKET-ACCEPT: {ACCEPT}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\nXY"
        );
        assert_eq!(response(ok.as_bytes()), Ok(Some(ok.len() - 2)));
        assert_eq!(response(&ok.as_bytes()[..20]), Ok(None));
        assert!(response(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
        assert!(
            response(b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
                .is_err()
        );
    }
}
