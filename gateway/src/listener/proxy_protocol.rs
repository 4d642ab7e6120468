//! The PROXY protocol, versions 1 and 2: by which a proxy tells whose connection it passes on, before the first byte.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt> is what binds here.
//!
//! Pure: no socket and no clock. Whom to believe is `opening`'s matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest line of version 1, its end included.
const LONGEST_V1: usize = 107;
/// A header of version 2 may be as long as nginx lets it be; the protocol itself allows 64 KiB of what nobody reads.
const LONGEST_V2: usize = 4096;
const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, length.
const FIXED_V2: usize = SIGNATURE_V2.len() + 4;
const CRC32C: u8 = 3;

/// Which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Where a connection comes from, and where it went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client connected to.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are, where they may be a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// They may become one, and nothing more can be said before there are so many.
    Incomplete {
        /// More than there are.
        needed: usize,
    },
    /// A whole one.
    Header {
        /// How many bytes it has; what follows is the client's.
        length: usize,
        /// Absent where it tells nothing of a client (`UNKNOWN`, `LOCAL`) or of one that has no IP address: then the
        /// connection speaks for itself.
        addresses: Option<Addresses>,
    },
}

/// Why there is no header that could be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first bytes are those of something else.
    Missing,
    /// It begins as one and goes wrong.
    Broken(&'static str),
}

/// The version as which these bytes begin; nothing where they are too few to say so.
///
/// # Errors
/// They begin as something else.
pub fn signature(bytes: &[u8]) -> Result<Option<Version>, Fault> {
    for (signature, version) in [(SIGNATURE_V1, Version::V1), (SIGNATURE_V2, Version::V2)] {
        if bytes.starts_with(signature) {
            return Ok(Some(version));
        }
        if signature.starts_with(bytes) {
            return Ok(None);
        }
    }
    Err(Fault::Missing)
}

/// Reads a header off the first bytes of a connection.
///
/// # Errors
/// There is none, or one that is not legal.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Fault> {
    match signature(bytes)? {
        None => Ok(Parsed::Incomplete { needed: bytes.len() + 1 }),
        Some(Version::V1) => parse_v1(bytes),
        Some(Version::V2) => parse_v2(bytes),
    }
}

impl Version {
    /// The header that tells these addresses.
    pub fn header(self, addresses: &Addresses) -> Vec<u8> {
        let Addresses { source, destination } = addresses;
        let ports = [source.port(), destination.port()];
        match (self, same_family(source.ip(), destination.ip())) {
            (Self::V1, Family::V4([source, destination])) => {
                format!("PROXY TCP4 {source} {destination} {} {}\r\n", ports[0], ports[1]).into()
            }
            (Self::V1, Family::V6([source, destination])) => {
                format!("PROXY TCP6 {source} {destination} {} {}\r\n", ports[0], ports[1]).into()
            }
            (Self::V2, Family::V4(ips)) => header_v2(0x11, ips.map(|ip| ip.octets()).as_flattened(), ports),
            (Self::V2, Family::V6(ips)) => header_v2(0x21, ips.map(|ip| ip.octets()).as_flattened(), ports),
        }
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Fault> {
    const ILLEGAL: Fault = Fault::Broken("its line is not as version 1 has it");
    let line = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match line.len() < LONGEST_V1 {
            true => Ok(Parsed::Incomplete { needed: bytes.len() + 1 }),
            false => Err(Fault::Broken("its line does not end within 107 bytes")),
        };
    };
    let length = end + 2;
    let line = std::str::from_utf8(&line[SIGNATURE_V1.len()..end]).map_err(|_| ILLEGAL)?;
    let fields: Vec<&str> = line.split(' ').collect();
    let addresses = match fields.as_slice() {
        // Section 2.1: whatever follows is to be ignored.
        ["UNKNOWN", ..] => return Ok(Parsed::Header { length, addresses: None }),
        ["TCP4", source, destination, ports @ ..] => {
            let ip = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            Some((ip(source), ip(destination), ports))
        }
        ["TCP6", source, destination, ports @ ..] => {
            let ip = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
            Some((ip(source), ip(destination), ports))
        }
        _ => None,
    };
    let Some((Some(source), Some(destination), [source_port, destination_port])) = addresses else {
        return Err(ILLEGAL);
    };
    let port = |text: &str| text.parse().ok().filter(|port: &u16| port.to_string() == text).ok_or(ILLEGAL);
    let source = SocketAddr::new(source, port(source_port)?);
    let destination = SocketAddr::new(destination, port(destination_port)?);
    Ok(Parsed::Header { length, addresses: Some(Addresses { source, destination }) })
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Fault> {
    let Some(&[command, family, high, low]) = bytes.get(SIGNATURE_V2.len()..FIXED_V2) else {
        return Ok(Parsed::Incomplete { needed: FIXED_V2 });
    };
    let length = FIXED_V2 + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2 {
        return Err(Fault::Broken("it is longer than 4096 bytes"));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Broken("its version or its command is none that there is")),
    };
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Incomplete { needed: length }) };
    let body = &header[FIXED_V2..];
    // Section 2.2: of what is the proxy's own connection, nothing else is to be read.
    if is_local {
        return Ok(Parsed::Header { length, addresses: None });
    }
    let (addresses, rest) = match family {
        0x00 => return Ok(Parsed::Header { length, addresses: None }),
        0x11 | 0x12 => split(body, |[a, b]: [[u8; 4]; 2]| [IpAddr::from(a), IpAddr::from(b)]),
        0x21 | 0x22 => split(body, |[a, b]: [[u8; 16]; 2]| [IpAddr::from(a), IpAddr::from(b)]),
        0x31 | 0x32 => body.get(2 * 108..).map(|rest| (None, rest)),
        _ => return Err(Fault::Broken("its family or its protocol is none that there is")),
    }
    .ok_or(Fault::Broken("it has no room for its addresses"))?;
    check_tlvs(header, length - rest.len())?;
    Ok(Parsed::Header { length, addresses })
}

/// The addresses at the begin of a body, and what is behind them.
fn split<const N: usize>(
    body: &[u8],
    ips: impl Fn([[u8; N]; 2]) -> [IpAddr; 2],
) -> Option<(Option<Addresses>, &[u8])> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (&[a, b, c, d], rest) = rest.split_first_chunk()?;
    let [source, destination] = ips([*source, *destination]);
    let addresses = Addresses {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    };
    Some((Some(addresses), rest))
}

/// Walks over what stands behind the addresses. None of it is used but the checksum, which must be right where there is
/// one.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), Fault> {
    while at < header.len() {
        let value = match header.get(at..at + 3) {
            Some(&[_, high, low]) => at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low])),
            _ => return Err(Fault::Broken("what stands behind its addresses is cut short")),
        };
        let Some(told) = header.get(value.clone()) else {
            return Err(Fault::Broken("what stands behind its addresses is cut short"));
        };
        // Section 2.2.4: it is computed with zeros in its own place.
        let zeroed = header.iter().enumerate().map(|(at, byte)| if value.contains(&at) { 0 } else { *byte });
        if header[at] == CRC32C && told != crc32c(zeroed).to_be_bytes() {
            return Err(Fault::Broken("its checksum is wrong"));
        }
        at = value.end;
    }
    Ok(())
}

/// RFC 9260 appendix A, bit by bit: a header is short, and most have none.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}

fn header_v2(family: u8, ips: &[u8], ports: [u16; 2]) -> Vec<u8> {
    let length = (ips.len() + 4) as u16;
    let mut header = [SIGNATURE_V2, &[0x21, family], &length.to_be_bytes(), ips].concat();
    header.extend(ports.map(u16::to_be_bytes).as_flattened());
    header
}

enum Family {
    V4([Ipv4Addr; 2]),
    V6([Ipv6Addr; 2]),
}

/// Both in one family: a header has room for no more.
fn same_family(source: IpAddr, destination: IpAddr) -> Family {
    let v6 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (source.to_canonical(), destination.to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Family::V4([source, destination]),
        (source, destination) => Family::V6([v6(source), v6(destination)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_with_whatever_follows() {
        for (source, destination) in [
            ("192.0.2.1:1234", "198.51.100.7:443"),
            ("[2001:db8::1]:65535", "[::1]:1"),
            ("192.0.2.1:0", "[2001:db8::1]:443"),
        ] {
            let told = addresses(source, destination);
            for version in [Version::V1, Version::V2] {
                let header = version.header(&told);
                let Parsed::Header { length, addresses: Some(read) } =
                    parse(&[&header[..], b"GET /"].concat()).unwrap()
                else {
                    panic!("{header:?}")
                };
                let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
                assert_eq!(length, header.len());
                assert_eq!(canonical(read.source), told.source, "{version:?}");
                assert_eq!(canonical(read.destination), told.destination, "{version:?}");
                assert_eq!(signature(&header), Ok(Some(version)));
                for cut in 0..header.len() {
                    let parsed = parse(&header[..cut]);
                    assert!(
                        matches!(parsed, Ok(Parsed::Incomplete { needed }) if cut < needed && needed <= header.len()),
                        "{version:?} at {cut}: {parsed:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn version_1_is_read_to_the_letter() {
        let none = |header: &str| {
            let parsed = parse(format!("{header}\r\nrest").as_bytes());
            assert_eq!(parsed, Ok(Parsed::Header { length: header.len() + 2, addresses: None }), "{header}");
        };
        none("PROXY UNKNOWN");
        none("PROXY UNKNOWN ffff::1 ffff::2 65535 65535");
        let wrong = |header: &str| {
            let parsed = parse(format!("{header}\r\nrest").as_bytes());
            assert!(matches!(parsed, Err(Fault::Broken(_))), "{header}: {parsed:?}");
        };
        wrong("PROXY ");
        wrong("PROXY TCP5 192.0.2.1 192.0.2.2 1 2");
        wrong("PROXY tcp4 192.0.2.1 192.0.2.2 1 2");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 1");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3");
        wrong("PROXY TCP4  192.0.2.1 192.0.2.2 1 2");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 01 2");
        wrong("PROXY TCP4 192.0.2.01 192.0.2.2 1 2");
        wrong("PROXY TCP4 ::1 ::2 1 2");
        wrong("PROXY TCP6 192.0.2.1 192.0.2.2 1 2");
        wrong("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n");
        wrong(&format!("PROXY UNKNOWN {}", "x".repeat(100)));
        let endless = format!("PROXY TCP4 {}", "1".repeat(96));
        assert_eq!(endless.len(), LONGEST_V1);
        assert!(matches!(parse(endless.as_bytes()), Err(Fault::Broken(_))));
        assert!(matches!(parse(&endless.as_bytes()[..106]), Ok(Parsed::Incomplete { .. })));
    }

    #[test]
    fn version_2_is_read_to_the_letter() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
        let told = Some(addresses("192.0.2.1:1", "192.0.2.2:2"));
        let read = |command, family, body: &[u8], addresses| {
            let header = raw(command, family, body);
            assert_eq!(parse(&header), Ok(Parsed::Header { length: header.len(), addresses }), "{header:?}");
        };
        read(0x21, 0x11, &v4, told);
        read(0x21, 0x12, &v4, told);
        read(0x20, 0x11, &v4, None);
        read(0x20, 0x00, b"", None);
        read(0x20, 0xff, b"whatever", None);
        read(0x21, 0x00, b"whatever", None);
        read(0x21, 0x31, &[b'x'; 216], None);
        // An ALPN and a name that the client asked for, then nothing for padding.
        read(0x21, 0x11, &[&v4[..], b"\x01\0\x02h2\x02\0\x01a\x04\0\0"].concat(), told);
        let wrong = |command, family, body: &[u8]| {
            let header = raw(command, family, body);
            assert!(matches!(parse(&header), Err(Fault::Broken(_))), "{header:?}");
        };
        wrong(0x11, 0x11, &v4);
        wrong(0x22, 0x11, &v4);
        wrong(0x21, 0x13, &v4);
        wrong(0x21, 0x41, &v4);
        wrong(0x21, 0x11, &v4[..11]);
        wrong(0x21, 0x21, &v4);
        wrong(0x21, 0x31, &[0; 215]);
        wrong(0x21, 0x11, &[&v4[..], b"\x01\0"].concat());
        wrong(0x21, 0x11, &[&v4[..], b"\x01\0\x03h2"].concat());
        wrong(0x20, 0x00, &[0; LONGEST_V2]);
    }

    #[test]
    fn a_checksum_must_be_right_where_there_is_one() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283, "the check value of the algorithm");
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
        let with = |crc: u32| raw(0x21, 0x11, &[&v4[..], b"\x03\0\x04", &crc.to_be_bytes()].concat());
        let right = crc32c(with(0).into_iter());
        assert!(matches!(parse(&with(right)), Ok(Parsed::Header { addresses: Some(_), .. })));
        assert_eq!(parse(&with(right ^ 1)), Err(Fault::Broken("its checksum is wrong")));
        assert!(parse(&raw(0x21, 0x11, &[&v4[..], b"\x03\0\x01x"].concat())).is_err());
    }

    #[test]
    fn something_else_is_told_by_its_first_bytes() {
        for bytes in
            [&b"G"[..], b"PO", b"PROXZ", b"PROXY/", b"\x16\x03\x01", b"\r\nGET", b"\r\n\r\n\0\r\nQUIT\r"]
        {
            assert_eq!(parse(bytes), Err(Fault::Missing), "{bytes:?}");
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(parse(bytes), Ok(Parsed::Incomplete { needed: bytes.len() + 1 }), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_whatever_make_it_panic() {
        let told = addresses("[2001:db8::1]:65535", "[::1]:1");
        for version in [Version::V1, Version::V2] {
            for _ in 0..20_000 {
                let mut bytes = [&version.header(&told)[..], b"\x03\0\x04abcd\x01\0\x02h2"].concat();
                for _ in 0..fastrand::usize(1..5) {
                    let at = fastrand::usize(..bytes.len());
                    bytes[at] = fastrand::u8(..);
                }
                bytes.truncate(fastrand::usize(..=bytes.len()));
                if let Ok(Parsed::Incomplete { needed }) = parse(&bytes) {
                    assert!(needed > bytes.len());
                }
            }
        }
    }

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn raw(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [SIGNATURE_V2, &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
    }
}
