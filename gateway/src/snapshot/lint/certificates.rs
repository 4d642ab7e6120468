//! Certificates that have expired or soon will.

use jiff::{SignedDuration, Timestamp};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use vestibule_plugins::Problem;

use super::{Subject, Use};

/// So long before its end a certificate is told of: time enough for a person to act, too little for a renewal at two
/// thirds of ninety days to be told of in vain.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

const DAY: i64 = 24 * 60 * 60;

/// A certificate that is shown, or all CAs of a file, of which none or soon none is valid.
pub fn certificates(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for (at, file, usage) in subject.tls_files() {
        let found = match usage {
            Use::PrivateKey | Use::Password => continue,
            Use::Certificate => subject.files.certificates(file, &at),
            Use::Authorities => subject.files.authorities(file, &at),
        };
        let Some(validity) = found.ok().and_then(|found| validity(usage, &found).ok().flatten()) else {
            continue;
        };
        let file = file.display();
        let (what, one) = match (usage, validity.count) {
            (Use::Authorities, 2..) => (format!("every CA in `{file}`"), "the last of them "),
            (Use::Authorities, _) => (format!("the CA `{file}`"), ""),
            _ => (format!("the certificate `{file}`"), ""),
        };
        let key = if usage == Use::Authorities { "ca" } else { "cert" };
        let hint = format!("put its successor in its place, or name that: `{key}: FILE`");
        let (now, begin, end) = (subject.now, validity.begin, validity.end);
        let message = if end <= now {
            format!("{what} has expired: {one}on {}", date(end))
        } else if end.duration_since(now) < SOON {
            let left = match end.duration_since(now).as_secs() / DAY {
                0 => "in less than a day".to_owned(),
                1 => "in 1 day".to_owned(),
                days => format!("in {days} days"),
            };
            format!("{what} expires soon: {one}on {}, {left}", date(end))
        } else if begin > now {
            format!("{what} is not valid before {}", date(begin))
        } else {
            continue;
        };
        warnings.push(Problem::new(at, message).hint(hint));
    }
}

/// From when until when some certificate is valid, of so many.
struct Validity {
    begin: Timestamp,
    end: Timestamp,
    count: usize,
}

/// Of a chain the first certificate alone counts: the others may be there for old clients only, and expired on
/// purpose. One valid CA of a bundle is enough.
fn validity(usage: Use, found: &[X509]) -> Result<Option<Validity>, ErrorStack> {
    let counted = if usage == Use::Authorities { found } else { found.get(..1).unwrap_or_default() };
    let mut validity: Option<Validity> = None;
    for certificate in counted {
        let (begin, end) = (timestamp(certificate.not_before())?, timestamp(certificate.not_after())?);
        validity = Some(match validity {
            None => Validity { begin, end, count: 1 },
            Some(it) => Validity { begin: it.begin.min(begin), end: it.end.max(end), count: it.count + 1 },
        });
    }
    Ok(validity)
}

fn timestamp(time: &Asn1TimeRef) -> Result<Timestamp, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * DAY + i64::from(since.secs);
    // A year beyond 9999 is no valid time for OpenSSL either.
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}
