//! Any bytes as the first ones of a connection that a proxy passes on: a header is read off whole, and what it tells can be
//! told again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::listener::proxy_protocol::{Parsed, Version, parse};

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(Parsed::Incomplete { needed }) => {
            assert!(needed > bytes.len(), "it waits for what is there already")
        }
        Ok(Parsed::Header { length, addresses }) => {
            assert!((1..=bytes.len()).contains(&length), "{length} of {}", bytes.len());
            assert_eq!(parse(&bytes[..length]), Ok(Parsed::Header { length, addresses }), "by what follows");
            assert!(matches!(parse(&bytes[..length - 1]), Ok(Parsed::Incomplete { .. })), "too early");
            let Some(addresses) = addresses else { return };
            for version in [Version::V1, Version::V2] {
                let header = version.header(&addresses);
                let Ok(Parsed::Header { length, addresses: Some(again) }) = parse(&header) else {
                    panic!("{header:?} cannot be read back");
                };
                assert_eq!(length, header.len());
                let canonical = |ip: std::net::IpAddr| ip.to_canonical();
                for (one, other) in
                    [(addresses.source, again.source), (addresses.destination, again.destination)]
                {
                    assert_eq!((canonical(one.ip()), one.port()), (canonical(other.ip()), other.port()));
                }
            }
        }
        Err(_) => {}
    }
});
