//! Host patterns: an exact name or `*.suffix`, and the one form in which hosts are compared.
//! No ports: whoever reads the request takes the port off first.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use super::rank::HostRank;

/// What a route says about the host. Made by `parse`, in lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name and no other; an IPv6 literal keeps its brackets and is in RFC 5952's form.
    Exact(String),
    /// `.example.com`, from `*.example.com`: any number of labels in front of it, but at least one.
    Suffix(String),
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`. The error is for the file's
    /// author.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(
                "a host is empty: write a name like `example.com`, or leave `hosts` out for every host"
                    .into(),
            );
        }
        if let Some((_, rest)) = text.split_once("://") {
            let name = rest.split(['/', ':']).next().unwrap_or(rest);
            return Err(format!("host `{text}` has a scheme: write `{name}` alone"));
        }
        if let Some((name, _)) = text.split_once('/') {
            return Err(format!("host `{text}` has a path: write `{name}`, and the path under `paths`"));
        }
        if text.starts_with('[') || text.matches(':').count() > 1 {
            return parse_ipv6(text);
        }
        if let Some((name, _)) = text.split_once(':') {
            return Err(format!("host `{text}` has a port: write `{name}`, as every port is matched"));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name == "*" {
            return Err(format!("host `{text}` is no suffix: leave `hosts` out for every host"));
        }
        match name.strip_prefix("*.") {
            Some(suffix) => {
                check_name(text, suffix)?;
                Ok(Self::Suffix(format!(".{suffix}")))
            }
            None => {
                check_name(text, &name)?;
                Ok(Self::Exact(name))
            }
        }
    }

    /// Whether this pattern takes the host, which is in `comparable` form, and how closely.
    pub(super) fn rank(&self, host: &str) -> Option<HostRank> {
        match self {
            Self::Exact(name) => (host == name).then_some(HostRank::Exact),
            Self::Suffix(suffix) => (host.len() > suffix.len() && host.ends_with(suffix))
                .then_some(HostRank::Suffix(suffix.len())),
        }
    }
}

impl fmt::Display for HostPattern {
    /// As the file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// The form in which hosts are compared: lower case, no trailing dot. Borrows unless there is a letter to
/// lower.
pub(crate) fn comparable(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn parse_ipv6(text: &str) -> Result<HostPattern, String> {
    let Some((inner, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
        return Err(match text.parse::<Ipv6Addr>() {
            Ok(address) => format!("host `{text}` is an IPv6 address without brackets: write `[{address}]`"),
            Err(_) => format!("host `{text}` is neither a name nor an IPv6 address like `[2001:db8::1]`"),
        });
    };
    let Ok(address) = inner.parse::<Ipv6Addr>() else {
        return Err(format!("host `{text}` is no IPv6 address: write one like `[2001:db8::1]`"));
    };
    match rest {
        "" => Ok(HostPattern::Exact(format!("[{address}]"))),
        _ if rest.starts_with(':') => {
            Err(format!("host `{text}` has a port: write `[{address}]`, as every port is matched"))
        }
        _ => Err(format!("host `{text}` goes on after its `]`: write `[{address}]`")),
    }
}

/// The limits are those of RFC 1035, section 2.3.4; `_` is taken because names in use have it.
fn check_name(text: &str, name: &str) -> Result<(), String> {
    if name.contains('*') {
        return Err(format!(
            "host `{text}` has a `*` inside: it may stand only for the first labels, as in `*.example.com`"
        ));
    }
    if name.split('.').any(str::is_empty) {
        let hint = match name.strip_prefix('.').filter(|rest| !rest.split('.').any(str::is_empty)) {
            Some(rest) => format!("write `*.{rest}` for every name below `{rest}`"),
            None => "between two dots there must be a label".into(),
        };
        return Err(format!("host `{text}` has an empty label: {hint}"));
    }
    if !name.is_ascii() {
        return Err(format!("host `{text}` is not ASCII: write its `xn--` form, which is what clients send"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(c) = name.chars().find(|&c| !allowed(c)) {
        let c = c.escape_default();
        return Err(format!("host `{text}` has a `{c}`: a name has letters, digits, `-`, `_` and dots"));
    }
    if name.split('.').any(|label| label.len() > 63) {
        return Err(format!("host `{text}` has a label of more than 63 characters, which no name may have"));
    }
    if name.len() > 253 {
        return Err(format!("host `{text}` has more than 253 characters, which no name may have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_lower_case_and_without_the_last_dot() {
        let exact = |given: &str, name: &str| {
            assert_eq!(HostPattern::parse(given), Ok(HostPattern::Exact(name.into())), "{given}")
        };
        let suffix = |given: &str, name: &str| {
            assert_eq!(HostPattern::parse(given), Ok(HostPattern::Suffix(name.into())), "{given}")
        };
        exact("Example.COM", "example.com");
        exact("example.com.", "example.com");
        exact("localhost", "localhost");
        exact("192.0.2.1", "192.0.2.1");
        exact("_sip.example.com", "_sip.example.com");
        exact("[::1]", "[::1]");
        exact("[2001:DB8:0::1]", "[2001:db8::1]");
        suffix("*.Example.com", ".example.com");
        suffix("*.example.com.", ".example.com");
        suffix("*.com", ".com");
    }

    #[test]
    fn a_wrong_host_is_refused_with_what_to_write_instead() {
        let check = |given: &str, message: &str| {
            assert_eq!(HostPattern::parse(given), Err(message.to_owned()), "{given}")
        };
        check("", "a host is empty: write a name like `example.com`, or leave `hosts` out for every host");
        check(
            "https://example.com:8443/x",
            "host `https://example.com:8443/x` has a scheme: write `example.com` alone",
        );
        check(
            "example.com/api",
            "host `example.com/api` has a path: write `example.com`, and the path under `paths`",
        );
        check(
            "example.com:80",
            "host `example.com:80` has a port: write `example.com`, as every port is matched",
        );
        check("::1", "host `::1` is an IPv6 address without brackets: write `[::1]`");
        check("a:b:c", "host `a:b:c` is neither a name nor an IPv6 address like `[2001:db8::1]`");
        check("[::1]:80", "host `[::1]:80` has a port: write `[::1]`, as every port is matched");
        check("[::1]x", "host `[::1]x` goes on after its `]`: write `[::1]`");
        check("[::g]", "host `[::g]` is no IPv6 address: write one like `[2001:db8::1]`");
        check("*", "host `*` is no suffix: leave `hosts` out for every host");
        let inside = |given: &str| {
            let message = "has a `*` inside: it may stand only for the first labels, as in `*.example.com`";
            check(given, &format!("host `{given}` {message}"));
        };
        inside("*.*.example.com");
        inside("a.*.example.com");
        inside("*a.example.com");
        check(
            ".example.com",
            "host `.example.com` has an empty label: \
             write `*.example.com` for every name below `example.com`",
        );
        check("a..b", "host `a..b` has an empty label: between two dots there must be a label");
        check("*.", "host `*.` is no suffix: leave `hosts` out for every host");
        check(".", "host `.` has an empty label: between two dots there must be a label");
        check(
            "bücher.example",
            "host `bücher.example` is not ASCII: write its `xn--` form, which is what clients send",
        );
        check("a b", "host `a b` has a ` `: a name has letters, digits, `-`, `_` and dots");
        let label = "a".repeat(64);
        check(
            &label,
            &format!("host `{label}` has a label of more than 63 characters, which no name may have"),
        );
        let name = vec!["a"; 128].join(".");
        check(&name, &format!("host `{name}` has more than 253 characters, which no name may have"));
    }

    #[test]
    fn a_suffix_takes_any_number_of_labels_but_not_none() {
        let check = |pattern: &str, host: &str, rank: Option<HostRank>| {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.rank(&comparable(host)), rank, "{pattern:?} {host}");
        };
        let suffix = Some(HostRank::Suffix(".example.com".len()));
        check("*.example.com", "a.example.com", suffix);
        check("*.example.com", "a.b.EXAMPLE.com.", suffix);
        check("*.example.com", "example.com", None);
        check("*.example.com", ".example.com", None);
        check("*.example.com", "badexample.com", None);
        check("example.com", "Example.Com.", Some(HostRank::Exact));
        check("example.com", "a.example.com", None);
        check("[::1]", "[::1]", Some(HostRank::Exact));
        check("[2001:db8::a]", "[2001:DB8::A]", Some(HostRank::Exact));
    }

    #[test]
    fn a_lower_case_host_is_compared_as_it_came() {
        assert!(matches!(comparable("example.com."), Cow::Borrowed("example.com")));
        assert!(matches!(comparable("Example.com"), Cow::Owned(name) if name == "example.com"));
    }
}
