//! What the YAML parser complains of, in words for the person who typed it.

/// The message and, where the slip is a common one, its remedy.
pub(super) fn in_plain_words(complaint: &str) -> (String, Option<String>) {
    let known = WORDS.iter().find(|(part, ..)| complaint.contains(part));
    match known {
        Some((_, message, "")) => (message.to_string(), None),
        Some((_, message, hint)) => (message.to_string(), Some(hint.to_string())),
        // The parser quotes a character `so'.
        None => (format!("this is not YAML: {}", complaint.replace('\'', "`")), None),
    }
}

/// A part of the parser's complaint, the message, the hint. The first that fits counts.
const WORDS: &[(&str, &str, &str)] = &[
    ("found a tab", "a tab stands where only spaces may", "indent with spaces"),
    ("tabs disallowed", "a tab stands where only spaces may", "indent with spaces"),
    ("tab cannot be used", "a tab stands where only spaces may", "indent with spaces"),
    ("start with a tab", "a tab stands where only spaces may", "indent with spaces"),
    (
        "unknown anchor",
        "this alias names no anchor",
        "a text that begins with `*` stands in quotes: `\"*.example.com\"`",
    ),
    (
        "unknown escape character",
        "this `\\` escapes nothing that YAML knows",
        "in double quotes write `\\\\`, or put the text in single quotes",
    ),
    (
        "mapping values are not allowed",
        "a `:` begins a value where none can be",
        "put a text that holds `: ` in quotes",
    ),
    (
        "illegal placement of ':'",
        "a `:` begins a value where none can be",
        "put a text that holds `: ` in quotes",
    ),
    ("mapping keys are not allowed", "a key cannot stand here", ""),
    ("simple key expect", "a key without a `:` behind it", "write `key: value`, with a space behind the `:`"),
    (
        "did not find expected key",
        "the indentation fits nothing above it",
        "entries of one map begin in one column",
    ),
    (
        "did not find expected '-'",
        "the indentation fits nothing above it",
        "items of one list begin in one column, each with a `-`",
    ),
    (
        "block sequence entries are not allowed",
        "a list item cannot stand here",
        "begin the list on a line of its own",
    ),
    (
        "indentation in flow",
        "a `[` or a `{` above is not closed before this line",
        "close it, or indent this line if it belongs to it",
    ),
    ("invalid indentation", "this line is not indented as what it belongs to", ""),
    ("wrongly indented", "this line is not indented as what it belongs to", ""),
    ("',' or ']'", "expected `,` or `]` in the list that a `[` began", ""),
    ("',' or '}'", "expected `,` or `}` in the map that a `{` began", ""),
    ("end of stream", "the quote that begins here is never closed", ""),
    ("unexpected eof", "the file ends in the middle of a value", ""),
    ("misplaced bracket", "a bracket is closed that was never opened", ""),
    ("trailing content", "something follows the closing quote", ""),
    ("unexpected character", "a text cannot begin with this character", "put the text in quotes"),
    ("expected node content", "a value is missing here", ""),
    ("recursion limit", "lists and maps hold one another too deep", ""),
    ("unprintable character", "a control character stands here", ""),
];
