//! Copies of a photograph under several names: the very same pixels, or saved again.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use super::spool::Spool;
use super::{PrepareError, PrepareOptions, Warning};
use crate::labels::LabelRow;
use crate::likeness::{Detail, LEAST, LEAST_SIDE, ONE_EYE, Print};
use crate::{Duplicates, Split};

/// What is known of copies of photographs, and warnings about them.
///
/// Copies that belong to different patients, or are on two sides of the split, are an error unless that is allowed: with
/// another seed, if not with this one, a network would be evaluated on what it was trained on; and one of the patients is
/// wrong.
///
/// `fine`: the photographs show enough for copies that were saved again to be told from others; of pictures that were enlarged
/// only the very same are found.
pub(super) fn check(
    options: &PrepareOptions,
    fine: bool,
    rows: &[LabelRow],
    spool: &Spool,
    split_of: &[Option<Split>],
) -> Result<(Duplicates, Vec<Warning>), PrepareError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let fine = fine && spool.side() >= LEAST_SIDE;
    let (copies, alike) = pool.install(|| find(spool, fine))?;
    let (mut warnings, mut refused) = (Vec::new(), Vec::new());
    let mut known = Duplicates {
        resaved: fine,
        allowed: options.allow_duplicates,
        found: copies.len() as u64,
        other_patients: 0,
        sides_exact: 0,
        sides_resaved: 0,
    };
    for copies in copies {
        let first = copies.rows[0];
        let differ = |what: &dyn Fn(usize) -> bool| copies.rows.iter().any(|&row| what(row));
        let across_patients = differ(&|row| rows[row].patient != rows[first].patient);
        let splits: BTreeSet<Split> = (copies.rows.iter())
            .filter_map(|&row| split_of[row])
            .collect();
        let images = copies.rows.iter();
        let warning = Warning::SamePixels {
            exact: copies.exact,
            across_patients,
            splits: splits.iter().copied().collect(),
            images: images
                .map(|&row| (rows[row].image.clone(), rows[row].grade))
                .collect(),
        };
        let across = across_patients || splits.len() > 1;
        known.other_patients += u64::from(across_patients);
        known.sides_exact += u64::from(splits.len() > 1 && copies.exact);
        known.sides_resaved += u64::from(splits.len() > 1 && !copies.exact);
        if across && !options.allow_duplicates {
            refused.push(warning);
        } else {
            warnings.push(warning);
        }
    }
    warnings.extend(one_eye(rows, alike));
    match refused.is_empty() {
        true => Ok((known, warnings)),
        false => Err(PrepareError::Copies { copies: refused }),
    }
}

/// A remark on pairs of different patients.
fn one_eye(rows: &[LabelRow], alike: Vec<Alike>) -> Option<Warning> {
    let differ = |pair: &Alike| rows[pair.rows.0].patient != rows[pair.rows.1].patient;
    let mut pairs: Vec<Alike> = alike.into_iter().filter(differ).collect();
    pairs.sort_by(|a, b| {
        let likeness = b.likeness.total_cmp(&a.likeness);
        likeness.then(a.rows.cmp(&b.rows))
    });
    let image = |row: usize| rows[row].image.clone();
    let listed = pairs.iter().take(LISTED);
    (!pairs.is_empty()).then(|| Warning::OneEye {
        pairs: pairs.len(),
        most_alike: listed
            .map(|pair| (image(pair.rows.0), image(pair.rows.1), pair.likeness))
            .collect(),
    })
}

/// Pairs of photographs that may be of one eye, and are no copies: how many are listed.
const LISTED: usize = 48;

/// Two rows whose photographs may be of one eye.
struct Alike {
    rows: (usize, usize),
    likeness: f32,
}

/// Rows that show one photograph.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Copies {
    /// In order; two at least.
    rows: Vec<usize>,
    /// Whether all their pixels are the same.
    exact: bool,
}

/// Finds all copies among the usable rows, and pairs that are not, but look like one eye.
///
/// Every print is compared with every other: 88,000 photographs are 3.9 thousand million pairs, of which a core does
/// some hundred million a second. Only where prints are near are the pictures themselves compared. Unless
/// the photographs are `fine` ([`LEAST_SIDE`]), only the very same pixels are found.
fn find(spool: &Spool, fine: bool) -> Result<(Vec<Copies>, Vec<Alike>), PrepareError> {
    let mut by_pixels: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
    for (row, record) in spool.usable() {
        by_pixels.entry(record.sha256).or_default().push(row);
    }
    let mut same: Vec<Vec<usize>> = by_pixels.into_values().collect();
    same.sort();
    if !fine {
        return Ok((joined(same, &[]), Vec::new()));
    }
    // One row stands for all with its pixels.
    let prints: Vec<(usize, Print)> = spool
        .usable()
        .map(|(row, record)| (row, record.print))
        .filter(|(row, _)| same.binary_search_by_key(row, |rows| rows[0]).is_ok())
        .collect();
    let near: Vec<(usize, usize)> = (0..prints.len())
        .into_par_iter()
        .flat_map_iter(|i| {
            let (row, print) = prints[i];
            let others = prints[i + 1..].iter();
            others
                .filter(move |(_, other)| print.is_near(other))
                .map(move |(other, _)| (row, *other))
        })
        .collect();
    let compared = |rows: (usize, usize)| {
        let detail = |row| Ok::<_, PrepareError>(Detail::of(&spool.square(row)?));
        let likeness = detail(rows.0)?.likeness(&detail(rows.1)?);
        Ok::<_, PrepareError>(Alike { rows, likeness })
    };
    let pairs: Vec<Alike> = near
        .into_par_iter()
        .map(compared)
        .filter(|pair| !matches!(pair, Ok(pair) if pair.likeness < ONE_EYE))
        .collect::<Result<_, _>>()?;
    let (copies, alike): (Vec<Alike>, Vec<Alike>) =
        pairs.into_iter().partition(|pair| pair.likeness > LEAST);
    let copies: Vec<(usize, usize)> = copies.iter().map(|pair| pair.rows).collect();
    Ok((joined(same, &copies), alike))
}

/// Joins groups by pairs of their first rows.
fn joined(same: Vec<Vec<usize>>, pairs: &[(usize, usize)]) -> Vec<Copies> {
    let mut leader: HashMap<usize, usize> = same.iter().map(|rows| (rows[0], rows[0])).collect();
    fn root(leader: &HashMap<usize, usize>, mut row: usize) -> usize {
        while leader[&row] != row {
            row = leader[&row];
        }
        row
    }
    for &(a, b) in pairs {
        let (a, b) = (root(&leader, a), root(&leader, b));
        leader.insert(a.max(b), a.min(b));
    }
    let mut groups: HashMap<usize, Vec<Vec<usize>>> = HashMap::new();
    for rows in same {
        groups.entry(root(&leader, rows[0])).or_default().push(rows);
    }
    let mut copies: Vec<Copies> = groups
        .into_values()
        .map(|parts| Copies {
            exact: parts.len() == 1,
            rows: {
                let mut rows = parts.concat();
                rows.sort_unstable();
                rows
            },
        })
        .filter(|copies| copies.rows.len() > 1)
        .collect();
    copies.sort_by(|a, b| a.rows.cmp(&b.rows));
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_joined_by_pairs() {
        let same = vec![vec![0, 7], vec![1], vec![2], vec![3], vec![4, 5], vec![6]];
        let copies = joined(same, &[(1, 3), (3, 6), (1, 6)]);
        let wanted = [
            (vec![0, 7], true),
            (vec![1, 3, 6], false),
            (vec![4, 5], true),
        ];
        let wanted = wanted.map(|(rows, exact)| Copies { rows, exact });
        assert_eq!(copies, wanted);
    }
}
