//! Fitting a circle to an outline of which a part is something else.

use fovea_core::random;

/// A point of the outline, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

/// A circle, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Circle {
    pub center: Point,
    pub radius: f64,
}

/// Circles tried through three points each. With half of the points on the circle one triple in
/// eight is good, so that all fail is out of the question.
const TRIALS: u32 = 300;
/// How far from a circle its points may lie: a part of the radius, and at least a pixel.
const TOLERANCE: f64 = 0.01;
/// Share of the outline's points that must lie on the circle.
const MIN_ON_CIRCLE: f64 = 0.6;
/// Of 36 sectors of 10 degrees, how many must hold such points: less of an arc does not say how
/// large its circle is.
const MIN_SECTORS: usize = 12;

/// The circle on which most of `outline` lies; `None` if the outline is no circle.
///
/// Consensus over circles through three points (RANSAC), then a least-squares fit to the points
/// near the best. A notch, a shadow or an eyelash are not on the circle and do not pull it. The
/// trials come from a fixed stream: the same picture always has the same circle.
///
/// `frame` is the picture's shorter side in pixels: the radius must lie between a fifth of it and
/// three times it.
pub(super) fn fit(outline: &[Point], frame: usize) -> Option<Circle> {
    if outline.len() < 30 {
        return None;
    }
    let frame = frame as f64;
    let sane = |c: &Circle| (0.2 * frame..=3.0 * frame).contains(&c.radius);
    let mut rng = random::stream("fundus-circle", &[]);
    let mut pick = || outline[random::below(&mut rng, outline.len() as u64) as usize];
    let best = (0..TRIALS)
        .filter_map(|_| through(pick(), pick(), pick()))
        .filter(sane)
        .map(|circle| (outline.iter().filter(|p| circle.holds(p)).count(), circle))
        .reduce(|best, new| if new.0 > best.0 { new } else { best });
    let (_, mut circle) = best?;
    for _ in 0..3 {
        let near: Vec<Point> = outline
            .iter()
            .copied()
            .filter(|p| circle.holds(p))
            .collect();
        circle = least_squares(&near).filter(sane)?;
    }
    let near: Vec<&Point> = outline.iter().filter(|p| circle.holds(p)).collect();
    let mut sectors = [false; 36];
    for point in &near {
        let angle = (point.y - circle.center.y).atan2(point.x - circle.center.x);
        let turn = angle / std::f64::consts::TAU + 0.5;
        sectors[((turn * 36.0) as usize).min(35)] = true;
    }
    let enough = near.len() as f64 >= MIN_ON_CIRCLE * outline.len() as f64
        && sectors.iter().filter(|s| **s).count() >= MIN_SECTORS;
    enough.then_some(circle)
}

impl Circle {
    fn holds(&self, point: &Point) -> bool {
        let (dx, dy) = (point.x - self.center.x, point.y - self.center.y);
        let distance = (dx * dx + dy * dy).sqrt();
        (distance - self.radius).abs() <= (TOLERANCE * self.radius).max(1.0)
    }
}

/// The circle through three points; `None` if they lie on a line.
fn through(a: Point, b: Point, c: Point) -> Option<Circle> {
    let (bx, by, cx, cy) = (b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y);
    let d = 2.0 * (bx * cy - by * cx);
    if d.abs() < 1e-6 {
        return None;
    }
    let (b2, c2) = (bx * bx + by * by, cx * cx + cy * cy);
    let (x, y) = ((cy * b2 - by * c2) / d, (bx * c2 - cx * b2) / d);
    Some(Circle {
        center: Point {
            x: a.x + x,
            y: a.y + y,
        },
        radius: (x * x + y * y).sqrt(),
    })
}

/// The circle that is nearest in the algebraic sense: it minimises the sum of
/// ((x - a)² + (y - b)² - r²)² (Kåsa, 1976), solved about the points' mean.
fn least_squares(points: &[Point]) -> Option<Circle> {
    let n = points.len() as f64;
    let mean = |f: &dyn Fn(&Point) -> f64| points.iter().map(f).sum::<f64>() / n;
    if points.len() < 3 {
        return None;
    }
    let (mx, my) = (mean(&|p| p.x), mean(&|p| p.y));
    let moment = |i: i32, j: i32| mean(&|p| (p.x - mx).powi(i) * (p.y - my).powi(j));
    let (uu, uv, vv) = (moment(2, 0), moment(1, 1), moment(0, 2));
    let right_u = (moment(3, 0) + moment(1, 2)) / 2.0;
    let right_v = (moment(0, 3) + moment(2, 1)) / 2.0;
    let determinant = uu * vv - uv * uv;
    if determinant.abs() < 1e-9 {
        return None;
    }
    let u = (right_u * vv - right_v * uv) / determinant;
    let v = (uu * right_v - uv * right_u) / determinant;
    Some(Circle {
        center: Point {
            x: mx + u,
            y: my + v,
        },
        radius: (u * u + v * v + uu + vv).sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arc(circle: Circle, from: f64, to: f64, n: usize) -> impl Iterator<Item = Point> {
        (0..n).map(move |i| {
            let angle = from + (to - from) * i as f64 / n as f64;
            Point {
                x: (circle.center.x + circle.radius * angle.cos()).round(),
                y: (circle.center.y + circle.radius * angle.sin()).round(),
            }
        })
    }

    proptest! {
        #[test]
        fn a_part_of_the_outline_finds_the_whole_circle(
            x in 200.0f64..500.0, y in 200.0f64..300.0, radius in 150.0f64..400.0,
            start in 0.0f64..std::f64::consts::TAU, noise in 0usize..100
        ) {
            let circle = Circle { center: Point { x, y }, radius };
            // 200 degrees of arc, and up to a quarter of the points on a straight line.
            let mut points: Vec<Point> = arc(circle, start, start + 3.5, 400).collect();
            points.extend((0..noise).map(|i| Point { x: 3.0 * i as f64, y: 40.0 }));
            let found = fit(&points, 512).expect("a circle");
            prop_assert!((found.center.x - x).abs() < 2.0, "{:?}", found);
            prop_assert!((found.center.y - y).abs() < 2.0, "{:?}", found);
            prop_assert!((found.radius - radius).abs() < 2.0, "{:?}", found);
        }
    }

    #[test]
    fn what_is_no_circle_has_none() {
        let square = (0..100).flat_map(|i| {
            let i = f64::from(i) * 3.0;
            [(i, 0.0), (i, 300.0), (0.0, i), (300.0, i)].map(|(x, y)| Point { x, y })
        });
        assert_eq!(fit(&square.collect::<Vec<_>>(), 400), None);
        let circle = Circle {
            center: Point { x: 0.0, y: 0.0 },
            radius: 200.0,
        };
        let short: Vec<Point> = arc(circle, 0.0, 1.0, 200).collect();
        assert_eq!(fit(&short, 400), None, "60 degrees do not make a circle");
        assert_eq!(fit(&[], 400), None);
        let one_place = vec![Point { x: 5.0, y: 5.0 }; 100];
        assert_eq!(fit(&one_place, 400), None);
    }
}
