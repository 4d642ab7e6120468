//! What a client's certificate says of it, as plugins and templates see it. Read off the certificate by the gateway, once
//! a connection; nothing here parses one.

use std::borrow::Cow;
use std::net::IpAddr;

/// The verified certificate of a client.
///
/// A part in which a control character stands is left out: no CA means one, and it would go into headers and logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject as RFC 4514 writes it: `CN=alice,O=devs`.
    pub subject: String,
    /// The subject's common name; `None` where it has none, or several.
    pub common_name: Option<String>,
    /// The subject's organisations, in its own order.
    pub organizations: Vec<String>,
    /// The alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Those that are URIs, as SPIFFE has them.
    pub uris: Vec<String>,
    /// Those that are addresses of mail.
    pub emails: Vec<String>,
    /// Those that are IP addresses.
    pub ips: Vec<IpAddr>,
    /// Who signed it, as RFC 4514 writes it.
    pub issuer: String,
    /// Its serial number, in lower-case hex.
    pub serial: String,
    /// When its time ends, as RFC 3339 has it.
    pub not_after: String,
    /// SHA-256 of the certificate, in lower-case hex.
    pub fingerprint: String,
    /// The certificate as PEM, URL-escaped so that it fits into a header.
    pub pem: String,
}

/// One part of it, as `${client_cert.NAME}` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `ClientCertificate` say what each is")]
pub enum ClientCertPart {
    Subject,
    Fingerprint,
    CommonName,
    Organization,
    Dns,
    Uri,
    Email,
    Ip,
    Issuer,
    Serial,
    NotAfter,
    Pem,
}

impl ClientCertPart {
    /// Each by its name, in the order in which they are told.
    pub const ALL: [(&'static str, Self); 12] = [
        ("subject", Self::Subject),
        ("fingerprint", Self::Fingerprint),
        ("common_name", Self::CommonName),
        ("organization", Self::Organization),
        ("dns", Self::Dns),
        ("uri", Self::Uri),
        ("email", Self::Email),
        ("ip", Self::Ip),
        ("issuer", Self::Issuer),
        ("serial", Self::Serial),
        ("not_after", Self::NotAfter),
        ("pem", Self::Pem),
    ];

    /// The part of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == name).map(|(_, part)| *part)
    }

    /// What the certificate has there; several are joined with a comma, and none is empty.
    pub fn of(self, certificate: &ClientCertificate) -> Cow<'_, str> {
        let text = match self {
            Self::Subject => &certificate.subject,
            Self::Fingerprint => &certificate.fingerprint,
            Self::CommonName => certificate.common_name.as_deref().unwrap_or_default(),
            Self::Organization => return joined(&certificate.organizations),
            Self::Dns => return joined(&certificate.dns_names),
            Self::Uri => return joined(&certificate.uris),
            Self::Email => return joined(&certificate.emails),
            Self::Ip => {
                let texts: Vec<String> = certificate.ips.iter().map(IpAddr::to_string).collect();
                return texts.join(",").into();
            }
            Self::Issuer => &certificate.issuer,
            Self::Serial => &certificate.serial,
            Self::NotAfter => &certificate.not_after,
            Self::Pem => &certificate.pem,
        };
        text.into()
    }
}

/// Borrowed where there is one at most, as there nearly always is.
fn joined(texts: &[String]) -> Cow<'_, str> {
    match texts {
        [] => "".into(),
        [text] => text.into(),
        texts => texts.join(",").into(),
    }
}
