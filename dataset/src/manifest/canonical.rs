//! JSON of which equal content is equal text.

use std::fmt::Write as _;

/// Writes a value with its keys sorted and without spaces.
///
/// Written here because the order in which serde_json keeps keys depends on a compile-time feature,
/// which any crate of a build can turn on.
pub(super) fn write_canonical(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(fields) => {
            let mut keys: Vec<_> = fields.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (i, (key, value)) in keys.into_iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let key = serde_json::Value::from(key.as_str());
                write!(out, "{comma}{key}:").expect("writing to a string");
                write_canonical(value, out);
            }
            out.push('}');
        }
        serde_json::Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => write!(out, "{scalar}").expect("writing to a string"),
    }
}
