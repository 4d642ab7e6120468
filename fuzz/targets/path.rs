//! Any bytes as a path: refused, or brought to the one spelling that no upstream reads otherwise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::route::normal::{DotSegments, EncodedSlashes, PathRules, Slashes, normalize};

fuzz_target!(|path: &[u8]| {
    for encoded_slashes in [EncodedSlashes::Reject, EncodedSlashes::Keep, EncodedSlashes::Decode] {
        for slashes in [Slashes::Merge, Slashes::Keep] {
            for dot_segments in [DotSegments::Resolve, DotSegments::Reject] {
                let rules = PathRules { encoded_slashes, slashes, dot_segments };
                let Ok(normal) = normalize(path, &rules) else { continue };
                assert!(normal.starts_with(b"/"));
                assert_eq!(normalize(&normal, &rules).as_deref(), Ok(&*normal), "of itself it is another");
                assert!(!normal.iter().any(|byte| byte.is_ascii_control() || b" #?\\".contains(byte)));
                let elements = || normal.split(|byte| *byte == b'/');
                assert!(
                    elements().all(|element| element != b"." && element != b".."),
                    "a dot segment is left"
                );
                if slashes == Slashes::Merge {
                    assert!(!normal.windows(2).any(|pair| pair == b"//"), "an empty element is left");
                }
                if encoded_slashes != EncodedSlashes::Keep {
                    let lower = normal.to_ascii_lowercase();
                    let is_left = lower.windows(3).any(|escape| escape == b"%2f" || escape == b"%5c");
                    assert!(!is_left, "an encoded slash is left");
                }
            }
        }
    }
});
