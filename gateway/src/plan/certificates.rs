//! Certificates that come, go or are replaced, and whether that is a step back.

use jiff::Timestamp;
use serde::Serialize;

use super::{Change, Described};
use crate::snapshot::certificates::{Certificate, Usage};

/// A certificate that is another one now.
#[derive(Debug, Serialize)]
pub struct CertificateChange {
    /// Whose it is: `listeners.web`, `upstreams.app`.
    pub owner: String,
    /// What it is used for.
    #[serde(rename = "use")]
    pub usage: Usage,
    /// `changed` where one takes the place of another.
    pub change: Change,
    /// The one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Certificate>,
    /// The one after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Certificate>,
    /// What is doubtful about the new one.
    pub warnings: Vec<String>,
}

/// In the order of the owners. One takes another's place that has the same subject and names, or the same subject, or
/// where there is just one of each.
pub fn compare(old: &Described, new: &Described, now: Timestamp) -> Vec<CertificateChange> {
    let is_in = |all: &[Certificate], it: &Certificate| {
        all.iter()
            .any(|other| (other.usage, &other.owner, &other.sha256) == (it.usage, &it.owner, &it.sha256))
    };
    let gone = old.certificates.iter().filter(|it| !is_in(&new.certificates, it));
    let mut gone: Vec<&Certificate> = gone.collect();
    let come: Vec<&Certificate> =
        new.certificates.iter().filter(|it| !is_in(&old.certificates, it)).collect();
    let mut found: Vec<CertificateChange> = Vec::new();
    for after in &come {
        let of_one = |it: &Certificate| it.usage == after.usage && it.owner == after.owner;
        let is_alone = gone.iter().filter(|it| of_one(it)).count() == 1
            && come.iter().filter(|it| of_one(it)).count() == 1;
        let alike: [&dyn Fn(&Certificate) -> bool; 3] = [
            &|it| it.subject == after.subject && it.names == after.names,
            &|it| it.subject == after.subject,
            &|_| is_alone,
        ];
        let at = alike.iter().find_map(|is_like| gone.iter().position(|it| of_one(it) && is_like(it)));
        let before = at.map(|at| gone.remove(at).clone());
        found.push(CertificateChange {
            owner: after.owner.clone(),
            usage: after.usage,
            change: if before.is_some() { Change::Changed } else { Change::Added },
            warnings: warnings(before.as_ref(), after, now),
            old: before,
            new: Some((*after).clone()),
        });
    }
    found.extend(gone.into_iter().map(|before| CertificateChange {
        owner: before.owner.clone(),
        usage: before.usage,
        change: Change::Removed,
        old: Some(before.clone()),
        new: None,
        warnings: Vec::new(),
    }));
    found.sort_by(|a, b| (&a.owner, a.usage).cmp(&(&b.owner, b.usage)));
    found
}

fn warnings(old: Option<&Certificate>, new: &Certificate, now: Timestamp) -> Vec<String> {
    let mut told = Vec::new();
    let begin: Option<Timestamp> = new.not_before.parse().ok();
    if new.ends().is_some_and(|end| end <= now) {
        told.push("the new one has expired".to_owned());
    }
    if begin.is_some_and(|begin| begin > now) {
        told.push("the new one is not valid yet".to_owned());
    }
    if let (Some(was), Some(is)) = (old.and_then(Certificate::ends), new.ends())
        && is < was
    {
        told.push("the new one expires sooner".to_owned());
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn certificate(subject: &str, names: &[&str], serial: &str, not_after: &str) -> Certificate {
        Certificate {
            usage: Usage::Listener,
            owner: "listeners.web".into(),
            subject: subject.into(),
            issuer: "CN=ca".into(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            serial: serial.into(),
            not_before: "2025-01-01T00:00:00Z".into(),
            not_after: not_after.into(),
            sha256: format!("hash-{serial}"),
        }
    }

    fn of(certificates: Vec<Certificate>) -> Described {
        let described = json!({ "hash": "h", "files": [], "tree": {}, "certificates": certificates });
        serde_json::from_value(described).unwrap()
    }

    #[test]
    fn a_certificate_takes_the_place_of_the_one_most_like_it() {
        let a = || certificate("CN=a", &["a.test"], "01", "2027-01-01T00:00:00Z");
        let b = || certificate("CN=b", &["b.test"], "02", "2027-01-01T00:00:00Z");
        let next_b = certificate("CN=b", &["b.test"], "03", "2026-01-01T00:00:00Z");
        let other = certificate("CN=other", &["o.test"], "04", "2024-01-01T00:00:00Z");
        let now = "2025-06-01T00:00:00Z".parse().unwrap();
        let told = |old: Vec<Certificate>, new: Vec<Certificate>| {
            let found = compare(&of(old), &of(new), now);
            let serial = |it: Option<Certificate>| it.map_or("-".into(), |it| it.serial);
            let lines = found.into_iter().map(|it| {
                format!("{:?} {} {} {}", it.change, serial(it.old), serial(it.new), it.warnings.join(", "))
            });
            lines.collect::<Vec<_>>()
        };
        assert!(told(vec![a(), b()], vec![b(), a()]).is_empty());
        assert_eq!(
            told(vec![a(), b()], vec![a(), next_b.clone()]),
            ["Changed 02 03 the new one expires sooner"]
        );
        assert_eq!(
            told(vec![a()], vec![other.clone()]),
            ["Changed 01 04 the new one has expired, the new one expires sooner"]
        );
        assert_eq!(
            told(vec![a(), b()], vec![other, next_b]),
            [
                "Added - 04 the new one has expired",
                "Changed 02 03 the new one expires sooner",
                "Removed 01 - "
            ]
        );
    }
}
