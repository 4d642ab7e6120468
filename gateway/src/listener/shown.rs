//! Reads a client's certificate, verified before, into what plugins and templates see of it.

use std::net::IpAddr;

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslRef;
use openssl::x509::{GeneralNameRef, X509NameRef, X509Ref};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use vestibule_plugins::ClientCertificate;

use crate::snapshot::certificates::date;

/// All but the unreserved characters of RFC 3986 section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The certificate that the client showed on this connection.
pub fn client_certificate(ssl: &SslRef) -> Option<ClientCertificate> {
    let certificate = ssl.peer_certificate()?;
    read(&certificate)
}

/// Nothing where OpenSSL cannot write what it has read.
fn read(certificate: &X509Ref) -> Option<ClientCertificate> {
    let digest = certificate.digest(MessageDigest::sha256()).ok()?;
    let serial = certificate.serial_number().to_bn().and_then(|number| number.to_hex_str()).ok()?;
    let pem = String::from_utf8(certificate.to_pem().ok()?).ok()?;
    let subject = certificate.subject_name();
    let alternative = certificate.subject_alt_names();
    let names = |of: fn(&GeneralNameRef) -> Option<&str>| {
        alternative.iter().flatten().filter_map(of).filter(|text| is_plain(text)).map(str::to_owned).collect()
    };
    let mut common_names = attributes(subject, Nid::COMMONNAME);
    Some(ClientCertificate {
        subject: rfc4514(subject),
        common_name: common_names.pop().filter(|_| common_names.is_empty()),
        organizations: attributes(subject, Nid::ORGANIZATIONNAME),
        dns_names: names(GeneralNameRef::dnsname),
        uris: names(GeneralNameRef::uri),
        emails: names(GeneralNameRef::email),
        ips: alternative.iter().flatten().filter_map(|name| ip(name.ipaddress()?)).collect(),
        issuer: rfc4514(certificate.issuer_name()),
        serial: serial.to_lowercase(),
        not_after: date(certificate.not_after()),
        fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        pem: utf8_percent_encode(&pem, ESCAPED).to_string(),
    })
}

fn attributes(name: &X509NameRef, nid: Nid) -> Vec<String> {
    let texts = name.entries_by_nid(nid).filter_map(|entry| entry.data().to_string().ok());
    texts.filter(|text| is_plain(text)).collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// `CN=alice,O=devs`: RFC 4514 section 2, the last attribute first.
pub fn rfc4514(name: &X509NameRef) -> String {
    let parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let key = entry.object().nid().short_name().unwrap_or("UNKNOWN");
            let value = entry.data().to_string().unwrap_or_default();
            let mut escaped = String::new();
            for (position, letter) in value.char_indices() {
                let at_edge = position == 0 && matches!(letter, '#' | ' ');
                if at_edge || matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
            format!("{key}={escaped}")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::pkey::PKey;
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509, X509Name};

    use super::*;

    fn certificate(subject: &[(Nid, &str)], uris: &[&str]) -> X509 {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        for (nid, text) in subject {
            name.append_entry_by_nid(*nid, text).unwrap();
        }
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(1_900_000_000).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        let mut names = SubjectAlternativeName::new();
        uris.iter().for_each(|uri| {
            names.uri(uri);
        });
        if !uris.is_empty() {
            let names = names.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(names).unwrap();
        }
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn several_organisations_are_all_told_and_several_common_names_are_none() {
        let of = |subject: &[(Nid, &str)]| {
            let read = read(&certificate(subject, &[])).unwrap();
            (read.common_name, read.organizations, read.subject)
        };
        let (o, cn) = (Nid::ORGANIZATIONNAME, Nid::COMMONNAME);
        assert_eq!(
            of(&[(o, "devs"), (o, "system:masters"), (cn, "alice")]),
            (
                Some("alice".into()),
                vec!["devs".into(), "system:masters".into()],
                "CN=alice,O=system:masters,O=devs".into()
            )
        );
        assert_eq!(of(&[(cn, "alice"), (cn, "admin")]).0, None);
        assert_eq!(of(&[(o, "devs")]).0, None);
    }

    #[test]
    fn a_part_with_a_control_character_is_left_out() {
        let (o, cn) = (Nid::ORGANIZATIONNAME, Nid::COMMONNAME);
        let read = read(&certificate(&[(o, "a\nb"), (o, "c"), (cn, "x\r\ny")], &["spiffe://a/b"])).unwrap();
        assert_eq!((read.common_name, read.organizations), (None, vec!["c".to_owned()]));
        assert_eq!(read.uris, ["spiffe://a/b"]);
        assert_eq!(read.not_after, "2030-03-17T17:46:40Z");
    }
}
