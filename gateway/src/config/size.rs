//! A number of bytes within bounds. How a size is spelt is for `vestibule_plugins` to say: the same in the whole file.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use vestibule_plugins::SizeText;

/// Decodes a size within bounds, both included.
pub fn size<'de, D: Deserializer<'de>>(from: D, least: usize, most: usize) -> Result<usize, D::Error> {
    let size = SizeText::deserialize(from)?;
    let within = usize::try_from(size.0).ok().filter(|bytes| (least..=most).contains(bytes));
    let [least, most] = [least, most].map(|bound| SizeText(bound as u64));
    within
        .ok_or_else(|| D::Error::custom(format!("expected a size from `{least}` to `{most}`, got `{size}`")))
}
