//! A text as a YAML scalar.

use std::fmt::Write as _;

/// The text as one scalar that YAML 1.1 and 1.2 take for this text, in a block and in a flow: plain where that is
/// beyond doubt, else in double quotes.
pub fn quoted(text: &str) -> String {
    match is_plain(text) {
        true => text.to_owned(),
        false => in_quotes(text),
    }
}

fn is_plain(text: &str) -> bool {
    // What a number, a date or an indicator may begin with is put in quotes, unless it is a relative path.
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/_$".contains(c))
        || text.starts_with("./")
        || text.starts_with("../");
    let consists = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/$+=~^;()".contains(&byte));
    begins && consists && !is_word(text)
}

/// The words of YAML 1.1 and 1.2 that are no texts.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn in_quotes(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\n' => write!(quoted, "\\n"),
            '\t' => write!(quoted, "\\t"),
            '\r' => write!(quoted, "\\r"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                write!(quoted, "\\u{:04x}", c as u32)
            }
            c if c.is_control() => write!(quoted, "\\x{:02x}", c as u32),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::quoted;
    use crate::config::tree;

    #[test]
    fn what_is_beyond_doubt_is_plain_and_the_rest_in_quotes() {
        for (text, expected) in [
            ("www.a.test", "www.a.test"),
            ("tls/ca.crt", "tls/ca.crt"),
            ("/etc/tls", "/etc/tls"),
            ("../ca.crt", "../ca.crt"),
            ("$host", "$host"),
            ("sha256/aB+c/d=", "sha256/aB+c/d="),
            ("", "\"\""),
            ("off", "\"off\""),
            ("No", "\"No\""),
            ("y", "\"y\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("1.2", "\"1.2\""),
            ("0x10", "\"0x10\""),
            (".inf", "\".inf\""),
            ("2001-01-01", "\"2001-01-01\""),
            ("12:30", "\"12:30\""),
            ("a:8080", "\"a:8080\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("@a", "\"@a\""),
            ("*.a.test", "\"*.a.test\""),
            ("&a", "\"&a\""),
            ("!a", "\"!a\""),
            ("%a", "\"%a\""),
            ("`a", "\"`a\""),
            ("- a", "\"- a\""),
            ("? a", "\"? a\""),
            ("---", "\"---\""),
            ("<<", "\"<<\""),
            ("=", "\"=\""),
            ("a, b", "\"a, b\""),
            ("{a}", "\"{a}\""),
            (" a ", "\" a \""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\n\t\u{1}\u{85}", "\"a\\n\\t\\x01\\x85\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn any_text_is_read_as_itself_in_a_block_and_in_a_flow() {
        fastrand::seed(7);
        let letters: Vec<char> =
            "aZ09 -:#,[]{}&*!|>'\"%@`?.~$/\\\n\r\t=<yno\u{85}\u{2028}\u{feff}é😀\u{0}\u{7f}"
                .chars()
                .collect();
        for _ in 0..20_000 {
            let text: String = (0..fastrand::usize(..6)).filter_map(|_| fastrand::choice(&letters)).collect();
            for line in [format!("k: {}", quoted(&text)), format!("{{ k: {}, a: [] }}", quoted(&text))] {
                let read = tree::read(&line, 0).unwrap().root.unwrap().value();
                assert_eq!(read.get("k"), Some(&Value::from(text.as_str())), "{line}");
            }
        }
    }
}
