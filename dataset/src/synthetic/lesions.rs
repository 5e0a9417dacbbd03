//! What diabetic retinopathy leaves on the retina, by grade.
//!
//! The grades follow the international clinical scale (Wilkinson et al. 2003): 0 none; 1 only
//! microaneurysms; 2 more than that; 3 many haemorrhages in all quadrants; 4 new vessels or
//! preretinal bleeding. Numbers and sizes are invented, and large enough to be seen in a picture
//! of 64 pixels from grade 2 on.

use super::anatomy::Anatomy;
use super::canvas::{Canvas, Mask, View};
use super::geometry::{Dice, Point, point};

/// How many of each kind an eye has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tiny dark red dots.
    pub microaneurysms: u32,
    /// Dots, blots and flames of blood.
    pub haemorrhages: u32,
    /// Clusters of hard exudates: bright yellow, sharp.
    pub exudates: u32,
    /// Cotton-wool spots: pale, soft.
    pub cotton_wool: u32,
    /// Tangles of new vessels.
    pub new_vessels: u32,
    /// Boat-shaped bleedings before the retina.
    pub preretinal: u32,
    /// Drusen: dull yellowish spots of age that are no retinopathy, at any grade.
    pub drusen: u32,
}

impl Counts {
    /// Drawn for a grade of 0 to 4.
    pub fn draw(grade: u8, dice: &mut Dice) -> Self {
        let drusen = if dice.chance(0.25) {
            dice.count(4, 14)
        } else {
            0
        };
        let mut n = |low: u32, high: u32| dice.count(low, high);
        let [
            microaneurysms,
            haemorrhages,
            exudates,
            cotton_wool,
            new_vessels,
        ] = match grade {
            0 => [0; 5],
            1 => [n(1, 5), 0, 0, 0, 0],
            2 => [n(6, 18), n(8, 14), n(2, 4), n(0, 1), 0],
            3 => [n(12, 30), n(18, 30), n(2, 5), n(1, 4), 0],
            _ => [n(10, 30), n(12, 24), n(2, 5), n(0, 4), n(1, 3)],
        };
        let preretinal = u32::from(grade >= 4 && dice.chance(0.4));
        Self {
            microaneurysms,
            haemorrhages,
            exudates,
            cotton_wool,
            new_vessels,
            preretinal,
            drusen,
        }
    }
}

/// Draws them into an eye. Returns where there is retinopathy now: all of them but the drusen.
pub fn paint(
    canvas: &mut Canvas,
    eye: &Anatomy,
    view: View,
    counts: &Counts,
    dice: &mut Dice,
) -> Mask {
    // What lies deeper is drawn first.
    let mut drusen = Mask::new(view);
    for _ in 0..counts.drusen {
        let p = eye.fovea() + dice.in_disc() * 0.4;
        if eye.is_free(p) {
            drusen.disc(p, dice.range(0.008, 0.02), 0.02, dice.range(0.15, 0.35));
        }
    }
    canvas.cover(&drusen, [226.0, 170.0, 104.0]);

    let mut wool = Mask::new(view);
    for _ in 0..counts.cotton_wool {
        let p = free_place(eye, dice);
        let radius = dice.range(0.04, 0.07);
        for _ in 0..4 {
            let part = p + dice.in_disc() * (0.7 * radius);
            wool.disc(part, 0.7 * radius, 0.9 * radius, dice.range(0.5, 0.75));
        }
    }
    canvas.cover(&wool, [236.0, 216.0, 178.0]);

    let mut blood = Mask::new(view);
    for _ in 0..counts.microaneurysms {
        let p = free_place(eye, dice);
        blood.disc(p, dice.range(0.006, 0.011), 0.008, dice.range(0.7, 0.95));
    }
    for _ in 0..counts.haemorrhages {
        haemorrhage(&mut blood, eye, dice);
    }
    for _ in 0..counts.preretinal {
        preretinal(&mut blood, eye, dice);
    }
    canvas.absorb(&blood, [0.52, 0.80, 0.70]);

    let mut lipid = Mask::new(view);
    for _ in 0..counts.exudates {
        exudates(&mut lipid, eye, dice);
    }
    canvas.cover(&lipid, [250.0, 226.0, 128.0]);

    let mut fresh = Mask::new(view);
    for i in 0..counts.new_vessels {
        new_vessels(&mut fresh, eye, i == 0 && dice.chance(0.5), dice);
    }
    canvas.absorb(&fresh, [0.28, 0.62, 0.55]);

    let mut all = wool;
    for mask in [blood, lipid, fresh] {
        all.add(&mask);
    }
    all
}

fn free_place(eye: &Anatomy, dice: &mut Dice) -> Point {
    loop {
        let p = dice.in_disc();
        if eye.is_free(p) {
            return p;
        }
    }
}

/// A dot, a ragged blot, or a flame along a vessel.
fn haemorrhage(blood: &mut Mask, eye: &Anatomy, dice: &mut Dice) {
    let strength = dice.range(0.8, 1.0);
    let kind = dice.uniform();
    if kind < 0.35 {
        let p = free_place(eye, dice);
        blood.disc(p, dice.range(0.018, 0.032), 0.014, strength);
    } else if kind < 0.8 {
        let p = free_place(eye, dice);
        let radius = dice.range(0.034, 0.07);
        blood.disc(p, 0.7 * radius, 0.03, strength);
        for _ in 0..dice.count(6, 10) {
            let from = p + dice.in_disc() * (0.5 * radius);
            let to = from + dice.in_disc() * (0.6 * radius);
            let half = radius * dice.range(0.15, 0.4);
            blood.segment(
                (from, half),
                (to, 0.6 * half),
                0.02,
                strength * dice.range(0.8, 1.0),
            );
        }
    } else {
        let (p, along) = eye.on_vessel(dice);
        let across = point(-along.y, along.x);
        let length = dice.range(0.07, 0.14);
        let p = p + across * (0.03 * dice.normal());
        for _ in 0..dice.count(5, 9) {
            let from = p + across * (0.012 * dice.normal()) + along * (0.02 * dice.normal());
            let to =
                from + along * (length * dice.range(0.5, 1.0)) + across * (0.01 * dice.normal());
            blood.segment(
                (from, dice.range(0.007, 0.013)),
                (to, 0.003),
                0.014,
                strength,
            );
        }
    }
}

/// A heap or a ring of small bright spots, most often near the macula.
fn exudates(lipid: &mut Mask, eye: &Anatomy, dice: &mut Dice) {
    let centre = loop {
        let p = if dice.chance(0.6) {
            eye.fovea() + dice.in_disc() * 0.45
        } else {
            dice.in_disc()
        };
        if eye.is_free(p) {
            break p;
        }
    };
    let spread = dice.range(0.06, 0.15);
    let ring = dice.chance(0.3);
    for _ in 0..dice.count(14, 34) {
        let away = if ring {
            dice.direction() * dice.range(0.85, 1.1)
        } else {
            dice.in_disc()
        };
        let p = centre + away * spread;
        if eye.is_free(p) {
            // Many small spots and a few large ones.
            let part = dice.uniform();
            let radius = 0.007 + 0.019 * part * part;
            lipid.disc(p, radius, 0.012, dice.range(0.75, 0.97));
        }
    }
}

/// A tangle of fine vessels, on the disc or on an arcade.
fn new_vessels(fresh: &mut Mask, eye: &Anatomy, at_disc: bool, dice: &mut Dice) {
    let (disc, radius) = eye.disc();
    let root = if at_disc {
        disc + dice.direction() * (0.6 * radius)
    } else {
        eye.on_vessel(dice).0
    };
    for _ in 0..dice.count(7, 13) {
        let (mut p, mut along, mut bend) = (root, dice.direction(), 0.0);
        for _ in 0..dice.count(7, 15) {
            bend = 0.6 * bend + 0.22 * dice.normal();
            along = along.turned(bend);
            let next = p + along * 0.015;
            fresh.segment((p, 0.0045), (next, 0.0045), 0.006, 0.9);
            p = next;
        }
    }
}

/// A pool of blood with a level top.
fn preretinal(blood: &mut Mask, eye: &Anatomy, dice: &mut Dice) {
    let centre = free_place(eye, dice) * 0.8;
    let width = dice.range(0.09, 0.17);
    let rows = 24;
    for row in 0..rows {
        let depth = row as f32 / rows as f32;
        let half = width * (1.0 - depth * depth).sqrt();
        let y = centre.y + 0.75 * width * depth;
        let thick = 0.1 * width;
        let from = point(centre.x - half + thick, y);
        let to = point(centre.x + half - thick, y);
        blood.segment((from, thick), (to, thick), 0.02, 0.95);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::random::stream;

    fn counts(grade: u8) -> Vec<Counts> {
        let draw = |i| Counts::draw(grade, &mut Dice(stream("test", &[i])));
        (0..200).map(draw).collect()
    }

    #[test]
    fn lesions_follow_the_grade() {
        let retinopathy = |c: &Counts| Counts { drusen: 0, ..*c };
        let none = Counts {
            microaneurysms: 0,
            haemorrhages: 0,
            exudates: 0,
            cotton_wool: 0,
            new_vessels: 0,
            preretinal: 0,
            drusen: 0,
        };
        assert!(counts(0).iter().all(|c| retinopathy(c) == none));
        assert!(counts(0).iter().any(|c| c.drusen > 0));
        for c in counts(1) {
            let only = Counts {
                microaneurysms: c.microaneurysms,
                ..none
            };
            assert_eq!(retinopathy(&c), only);
            assert!((1..=5).contains(&c.microaneurysms));
        }
        for grade in [2, 3, 4] {
            for c in counts(grade) {
                assert!(c.haemorrhages >= 8 && c.exudates >= 2, "{grade}: {c:?}");
                assert_eq!(c.new_vessels > 0, grade == 4, "{grade}: {c:?}");
                assert!(c.preretinal == 0 || grade == 4);
            }
        }
        let bleeding = |grade| -> u32 { counts(grade).iter().map(|c| c.haemorrhages).sum() };
        assert!(bleeding(3) > 2 * bleeding(2));
    }
}
