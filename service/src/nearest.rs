//! "Did you mean": the known name nearest to a mistyped one.

/// The name nearest to `given` by edit distance (insert, delete, replace, swap of neighbours), if it
/// is at most a third of the length away.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A distance takes time quadratic in the length, and nobody mistypes a name of 80 characters.
    let given: String = given.to_lowercase().chars().take(80).collect();
    let limit = (given.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&given, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["epochs", "batch", "momentum"];
        assert_eq!(nearest("epoch", names), Some("epochs"));
        assert_eq!(nearest("bacth", names), Some("batch"));
        assert_eq!(nearest("Momentun", names), Some("momentum"));
        assert_eq!(nearest("optimizer", names), None);
    }
}
