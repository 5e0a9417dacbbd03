//! The healthy eye: where disc, fovea and vessels lie, and how the retina is coloured.

use super::canvas::{Canvas, Colour, Mask, View};
use super::geometry::{Dice, Noise, Point, point, smoothstep};

/// What both eyes of a patient share.
pub struct Style {
    /// Colour of the retina in mid exposure.
    retina: Colour,
    /// How much of the choroid's vessels shines through; less in pigmented eyes.
    choroid: f32,
    /// Radius of the optic disc.
    disc: f32,
    /// Cup to disc ratio.
    cup: f32,
    /// Half width of a vein at the disc; arteries have two thirds of it.
    vein: f32,
    /// How much vessels wind.
    winding: f32,
}

impl Style {
    pub fn draw(dice: &mut Dice) -> Self {
        // From fair (orange) to heavily pigmented (brown).
        let pigment = dice.uniform();
        let mix = |fair: f32, dark: f32| fair + (dark - fair) * pigment;
        let tint = |dice: &mut Dice| 1.0 + 0.07 * dice.normal();
        Self {
            retina: [
                mix(205.0, 150.0) * tint(dice),
                mix(104.0, 68.0) * tint(dice),
                mix(52.0, 32.0) * tint(dice),
            ],
            choroid: (1.0 - pigment) * dice.range(0.3, 1.0),
            disc: dice.range(0.115, 0.15),
            cup: dice.range(0.3, 0.6),
            vein: dice.range(0.012, 0.017),
            winding: dice.range(0.6, 1.4),
        }
    }
}

/// One healthy eye.
pub struct Anatomy {
    style: Style,
    /// Centre of the optic disc, on the nasal side.
    disc: Point,
    /// Centre of the fovea.
    fovea: Point,
    /// Towards the nose: right in a right eye, left in a left eye.
    nasal: f32,
    arteries: Vec<Vessel>,
    veins: Vec<Vessel>,
}

/// A vessel: places along it, at least two, with the half width there.
type Vessel = Vec<(Point, f32)>;

/// Vessels end here, outside what is seen.
const BEYOND: f32 = 1.05;
/// Radius around the fovea that vessels leave free.
const AVASCULAR: f32 = 0.11;

impl Anatomy {
    /// `nasal` is 1 where the nose is on the right (a right eye), -1 where it is on the left.
    pub fn draw(style: Style, nasal: f32, dice: &mut Dice) -> Self {
        let disc = point(nasal * dice.range(0.47, 0.6), dice.range(-0.1, 0.04));
        let fovea = point(nasal * dice.range(-0.14, -0.02), dice.range(0.0, 0.1));
        let mut eye = Self {
            style,
            disc,
            fovea,
            nasal,
            arteries: Vec::new(),
            veins: Vec::new(),
        };
        for up in [-1.0, 1.0] {
            for temporal in [true, false] {
                for vein in [true, false] {
                    eye.trunk(up, temporal, vein, dice);
                }
            }
        }
        eye
    }

    /// Whether a lesion may lie at `p`: on the retina, off the disc and off the very fovea.
    pub fn is_free(&self, p: Point) -> bool {
        p.length() < 0.9
            && p.distance(self.disc) > 1.35 * self.style.disc
            && p.distance(self.fovea) > 0.06
    }

    pub fn disc(&self) -> (Point, f32) {
        (self.disc, self.style.disc)
    }

    pub fn fovea(&self) -> Point {
        self.fovea
    }

    /// A place on a large vessel, and the vessel's direction there.
    pub fn on_vessel(&self, dice: &mut Dice) -> (Point, Point) {
        loop {
            let vessel = &self.veins[dice.count(0, self.veins.len() as u32 - 1) as usize];
            // A branch that ended where it began has no direction.
            if vessel.len() < 2 {
                continue;
            }
            let i = dice.count(1, vessel.len() as u32 - 1) as usize;
            let (before, here) = (vessel[i - 1].0, vessel[i].0);
            if self.is_free(here) {
                return (here, (here - before).unit());
            }
        }
    }

    /// One of the eight vessels that leave the disc: an arcade around the macula, or a straighter
    /// one towards the nose.
    fn trunk(&mut self, up: f32, temporal: bool, vein: bool, dice: &mut Dice) {
        let out = if temporal { -self.nasal } else { self.nasal };
        let apart = if vein { 0.05 } else { -0.03 };
        let mut about =
            |x: f32, y: f32| point(x, y) + point(0.05 * dice.normal(), 0.05 * dice.normal());
        let start = self.disc + about(0.0, 0.0) * 0.3;
        let [first, second, end] = if temporal {
            [
                about(self.disc.x + out * 0.04, up * (0.52 + apart)),
                about(self.fovea.x, up * (0.68 + apart)),
                about(self.fovea.x + out * 0.85, up * (0.32 + 2.0 * apart)),
            ]
        } else {
            [
                about(self.disc.x + out * 0.12, up * (0.25 + apart)),
                about(self.disc.x + out * 0.28, up * (0.45 + apart)),
                about(self.disc.x + out * 0.42, up * (0.75 + 2.0 * apart)),
            ]
        };
        let mut half = self.style.vein * dice.range(0.85, 1.1);
        half *= if vein { 1.0 } else { 0.67 } * if temporal { 1.0 } else { 0.75 };
        let wave = Noise::new(dice);
        let winding = 0.022 * self.style.winding;
        let steps = 48;
        let mut vessel = Vessel::with_capacity(steps + 1);
        for i in 0..=steps {
            let t = i as f32 / steps as f32;
            let s = 1.0 - t;
            // A cubic Bézier curve, and a wave that starts at nothing.
            let p = start * (s * s * s)
                + first * (3.0 * s * s * t)
                + second * (3.0 * s * t * t)
                + end * (t * t * t);
            let sway = winding * smoothstep(0.0, 0.2, t);
            let p = p + point(wave.at(t * 9.0, 0.5), wave.at(t * 9.0, 30.5)) * sway;
            vessel.push((p, half * (1.0 - 0.6 * t)));
        }
        let mut i = dice.count(5, 9) as usize;
        let mut side = if dice.chance(0.5) { 1.0 } else { -1.0 };
        while i + 4 < vessel.len() {
            let along = (vessel[i].0 - vessel[i - 1].0).unit();
            let width = vessel[i].1 * dice.range(0.5, 0.72);
            let away = along.turned(side * dice.range(0.3, 0.55));
            let length = dice.range(0.25, 0.6);
            self.branch(vessel[i].0, away, width, length, 2, vein, dice);
            side = -side;
            i += dice.count(4, 8) as usize;
        }
        self.vessels(vein).push(vessel);
    }

    /// A branch that wanders from `start` and splits again, `depth` times at most.
    #[allow(clippy::too_many_arguments)] // One call, and every number is plain geometry.
    fn branch(
        &mut self,
        start: Point,
        along: Point,
        half: f32,
        length: f32,
        depth: u32,
        vein: bool,
        dice: &mut Dice,
    ) {
        let step = 0.03;
        let steps = (length / step) as usize + 2;
        let mut vessel = vec![(start, half)];
        let (mut p, mut along, mut bend) = (start, along, 0.0);
        for i in 1..=steps {
            bend = 0.75 * bend + 0.045 * self.style.winding * dice.normal();
            along = along.turned(bend);
            p = p + along * step;
            if p.length() > BEYOND || p.distance(self.fovea) < AVASCULAR {
                break;
            }
            let here = half * (1.0 - 0.65 * i as f32 / steps as f32);
            vessel.push((p, here));
            if depth > 0 && i > 3 && dice.chance(0.13) {
                let side = if dice.chance(0.5) { 1.0 } else { -1.0 };
                let away = along.turned(side * dice.range(0.2, 0.45));
                self.branch(p, away, here * 0.75, length * 0.6, depth - 1, vein, dice);
            }
        }
        if vessel.len() > 1 {
            self.vessels(vein).push(vessel);
        }
    }

    fn vessels(&mut self, vein: bool) -> &mut Vec<Vessel> {
        if vein {
            &mut self.veins
        } else {
            &mut self.arteries
        }
    }

    /// The retina with macula, disc and vessels, evenly lit.
    pub fn paint(&self, view: View, dice: &mut Dice) -> Canvas {
        let mut canvas = self.paint_retina(view, dice);
        self.paint_disc(&mut canvas, view, dice);
        let edge = 0.008;
        let fill = |vessels: &[Vessel], width: f32| {
            let mut mask = Mask::new(view);
            for vessel in vessels {
                for pair in vessel.windows(2) {
                    let [(a, wide_a), (b, wide_b)] = [pair[0], pair[1]];
                    mask.segment((a, wide_a * width), (b, wide_b * width), edge, 1.0);
                }
            }
            mask
        };
        canvas.absorb(&fill(&self.veins, 1.0), [0.38, 0.55, 0.45]);
        canvas.absorb(&fill(&self.arteries, 1.0), [0.20, 0.46, 0.42]);
        // Light mirrored by the arteries' walls.
        canvas.absorb(&fill(&self.arteries, 0.3), [-0.12, -0.2, -0.15]);
        canvas
    }

    fn paint_retina(&self, view: View, dice: &mut Dice) -> Canvas {
        let [broad, cloud, grain, choroid] = std::array::from_fn(|_| Noise::new(dice));
        let style = &self.style;
        Canvas::paint(view, |p| {
            let tone = 0.09 * broad.at(1.7 * p.x, 1.7 * p.y)
                + 0.06 * cloud.at(5.0 * p.x, 5.0 * p.y)
                + 0.035 * grain.at(22.0 * p.x, 22.0 * p.y);
            let from_fovea = p.distance(self.fovea);
            // The choroid's vessels: ridges of a noise, hidden behind the macula.
            let warp = 0.8 * cloud.at(3.0 * p.x + 20.0, 3.0 * p.y);
            let ridge = choroid.at(6.0 * p.x + warp, 6.0 * p.y - warp).abs();
            let stripe = smoothstep(0.35, 0.0, ridge) - 0.4;
            let choroid = 0.13 * style.choroid * stripe * smoothstep(0.15, 0.5, from_fovea);
            // Yellow pigment darkens the macula, most in the fovea.
            let macula =
                0.20 * smoothstep(0.36, 0.0, from_fovea) + 0.16 * smoothstep(0.10, 0.0, from_fovea);
            // Nerve fibres make the retina paler around the disc.
            let fibres = 0.10 * smoothstep(0.55, 0.1, p.distance(self.disc));
            let [red, green, blue] = style.retina;
            [
                red * (1.0 + 0.6 * tone + 0.5 * choroid - 0.6 * macula + 0.4 * fibres),
                green * (1.0 + tone + choroid - macula + fibres),
                blue * (1.0 + 1.3 * tone + 0.8 * choroid - 1.1 * macula + fibres),
            ]
        })
    }

    fn paint_disc(&self, canvas: &mut Canvas, view: View, dice: &mut Dice) {
        let radius = self.style.disc;
        // A little taller than wide: three discs in a column.
        let column = |mask: &mut Mask, radius: f32, edge: f32, strength: f32| {
            for shift in [-0.06, 0.0, 0.06] {
                mask.disc(
                    self.disc + point(0.0, shift * radius),
                    radius,
                    edge,
                    strength,
                );
            }
        };
        let light = dice.range(0.9, 1.05);
        let bright = |colour: Colour| colour.map(|v| v * light);
        let mut halo = Mask::new(view);
        column(
            &mut halo,
            radius * 1.12,
            radius * 0.5,
            dice.range(0.15, 0.4),
        );
        canvas.cover(&halo, bright([224.0, 150.0, 90.0]));
        let mut rim = Mask::new(view);
        column(&mut rim, radius, radius * 0.22, 0.9);
        canvas.cover(&rim, bright([240.0, 180.0, 112.0]));
        let mut cup = Mask::new(view);
        let place = self.disc + point(-0.08 * self.nasal * radius, 0.0);
        cup.disc(place, radius * self.style.cup, radius * 0.3, 0.85);
        canvas.cover(&cup, bright([252.0, 222.0, 166.0]));
    }
}
