//! Places on the earth as numbers: a grid of cells that halves longitude and latitude alternately, the number of a cell
//! as score of a sorted set, and the cells that cover an area.
//!
//! A cell of `step` is one of `2^step` columns and `2^step` rows; its number interleaves the bits of column and row,
//! the column's first. So all smaller cells within a cell have numbers in one range. Scores are numbers of cells of
//! step 26 (52 bits, which a double holds). Rows reach as far as the Mercator projection is used (EPSG:900913,
//! 85.05112878 degrees), not to the poles; only the textual geohash (<https://en.wikipedia.org/wiki/Geohash>) does.
//!
//! Distances are those of the haversine formula on a sphere.

/// The step of the cells whose numbers are scores.
const STEP_MAX: u32 = 26;
const LON_MAX: f64 = 180.0;
const LAT_MAX: f64 = 85.05112878;
/// Radius of the sphere, metres.
const EARTH_RADIUS: f64 = 6_372_797.560856;
/// Half the length of the equator in the Mercator projection, metres: the largest distance that has a step.
const MERCATOR_MAX: f64 = 20_037_726.37;

const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
/// Characters of a textual geohash; 52 bits fill ten of them, the last is always 0.
pub(crate) const TEXT_LEN: usize = 11;

/// A position in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) lon: f64,
    pub(crate) lat: f64,
}

impl Point {
    /// Whether the position lies in the grid.
    pub(crate) fn is_valid(&self) -> bool {
        self.lon.abs() <= LON_MAX && self.lat.abs() <= LAT_MAX
    }

    /// The score of the position's cell.
    pub(crate) fn score(&self) -> u64 {
        Cell::around(*self, STEP_MAX, LAT_MAX).number()
    }

    /// The middle of the cell of a score, which may be any number.
    pub(crate) fn of_score(score: f64) -> Point {
        let area = Cell::of_number(cell_number(score), STEP_MAX).area();
        Point {
            lon: ((area.west + area.east) / 2.0).clamp(-LON_MAX, LON_MAX),
            lat: ((area.south + area.north) / 2.0).clamp(-LAT_MAX, LAT_MAX),
        }
    }

    /// The textual geohash.
    pub(crate) fn text(&self) -> [u8; TEXT_LEN] {
        const POLE: f64 = 90.0;
        let number = Cell::around(*self, STEP_MAX, POLE).number();
        let mut text = [ALPHABET[0]; TEXT_LEN];
        for (i, out) in text[..TEXT_LEN - 1].iter_mut().enumerate() {
            *out = ALPHABET[(number >> (52 - 5 * (i + 1)) & 0x1f) as usize];
        }
        text
    }

    /// The distance to another position, metres.
    pub(crate) fn distance(&self, other: Point) -> f64 {
        let across = ((radians(other.lon) - radians(self.lon)) / 2.0).sin();
        if across == 0.0 {
            return self.lat_distance(other);
        }
        let (from, to) = (radians(self.lat), radians(other.lat));
        let along = ((to - from) / 2.0).sin();
        let haversine = along * along + from.cos() * to.cos() * across * across;
        2.0 * EARTH_RADIUS * haversine.sqrt().asin()
    }

    /// The distance between the circles of latitude, metres.
    fn lat_distance(&self, other: Point) -> f64 {
        EARTH_RADIUS * (radians(other.lat) - radians(self.lat)).abs()
    }
}

/// The number of a score's cell. Sorted sets may hold other scores than places: negative ones count from the top and
/// those too large are 0, as with Redis on x86-64.
fn cell_number(score: f64) -> u64 {
    const TOO_LARGE: f64 = 18_446_744_073_709_551_616.0;
    if score >= TOO_LARGE {
        0
    } else if score < 0.0 {
        score as i64 as u64
    } else {
        score as u64
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

/// An area by its sides, degrees.
#[derive(Clone, Copy, Debug)]
struct Area {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// A cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    column: u32,
    row: u32,
    step: u32,
}

/// The bits of a number at every other place.
fn spread(bits: u32) -> u64 {
    let mut wide = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555u64),
    ] {
        wide = (wide | wide << shift) & mask;
    }
    wide
}

/// Every other bit of a number: the reverse of [`spread`].
fn gather(wide: u64) -> u32 {
    let mut bits = wide & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffffu64),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

impl Cell {
    /// The cell around a position, in a grid whose rows reach up to `lat_max`. On the far edges it lies beyond the grid.
    fn around(at: Point, step: u32, lat_max: f64) -> Cell {
        let cells = (1u64 << step) as f64;
        let index = |value: f64, max: f64| ((value + max) / (max + max) * cells) as u32;
        Cell { column: index(at.lon, LON_MAX), row: index(at.lat, lat_max), step }
    }

    fn of_number(number: u64, step: u32) -> Cell {
        Cell { column: gather(number >> 1), row: gather(number), step }
    }

    fn number(&self) -> u64 {
        spread(self.column) << 1 | spread(self.row)
    }

    /// The scores of the positions in the cell: the first, and the first that is not in it.
    fn scores(&self) -> (f64, f64) {
        let shift = 2 * (STEP_MAX - self.step);
        ((self.number() << shift) as f64, ((self.number() + 1) << shift) as f64)
    }

    fn area(&self) -> Area {
        let cells = (1u64 << self.step) as f64;
        let edge = |index: u32, max: f64| -max + f64::from(index) / cells * (max + max);
        Area {
            west: edge(self.column, LON_MAX),
            east: edge(self.column.wrapping_add(1), LON_MAX),
            south: edge(self.row, LAT_MAX),
            north: edge(self.row.wrapping_add(1), LAT_MAX),
        }
    }

    /// The cell so many columns to the east and rows to the north (-1, 0 or 1), wrapping around the grid.
    fn beside(&self, east: i32, north: i32) -> Cell {
        let within = (1u32 << self.step) - 1;
        let moved = |index: u32, by: i32| match by {
            0 => index,
            by => index.wrapping_add_signed(by) & within,
        };
        Cell { column: moved(self.column, east), row: moved(self.row, north), step: self.step }
    }
}

/// What is looked for: everything in a circle or a box, sizes in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// A shape around a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    pub(crate) center: Point,
    pub(crate) shape: Shape,
}

impl Search {
    /// The distance of a position from the center, metres; `None` outside the shape.
    pub(crate) fn distance(&self, at: Point) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => Some(self.center.distance(at)).filter(|d| *d <= radius),
            Shape::Box { width, height } => {
                let fits = at.lat_distance(self.center) <= height / 2.0
                    && at.distance(Point { lon: self.center.lon, lat: at.lat }) <= width / 2.0;
                fits.then(|| self.center.distance(at))
            }
        }
    }

    /// The area that encloses the shape. East and west are taken at the side nearer to a pole, where they are farthest.
    fn bounds(&self) -> Area {
        let (half_width, half_height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Point { lon, lat } = self.center;
        let lat_delta = degrees(half_height / EARTH_RADIUS);
        let widest = if lat < 0.0 { lat - lat_delta } else { lat + lat_delta };
        let lon_delta = degrees(half_width / EARTH_RADIUS / radians(widest).cos());
        Area { west: lon - lon_delta, east: lon + lon_delta, south: lat - lat_delta, north: lat + lat_delta }
    }

    /// The step at which a cell and its neighbours almost surely cover the shape.
    fn step(&self) -> u32 {
        let mut reach = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        };
        if reach == 0.0 {
            return STEP_MAX;
        }
        let mut step = -1i32;
        while reach < MERCATOR_MAX {
            reach *= 2.0;
            step += 1;
        }
        // Columns are narrower towards the poles.
        let lat = self.center.lat.abs();
        step -= i32::from(lat > 66.0) + i32::from(lat > 80.0);
        step.clamp(1, STEP_MAX as i32) as u32
    }

    /// Ranges of scores that hold every position of the shape, each as its first score and the first one after it. The
    /// center's cell comes first, then its neighbours in a fixed order; none comes twice.
    pub(crate) fn score_ranges(&self) -> Vec<(f64, f64)> {
        let bounds = self.bounds();
        let mut cell = Cell::around(self.center, self.step(), LAT_MAX);
        // If the center is near the edge of its cell, the shape may reach beyond the neighbours.
        let too_small = cell.beside(0, 1).area().north < bounds.north
            || cell.beside(0, -1).area().south > bounds.south
            || cell.beside(1, 0).area().east < bounds.east
            || cell.beside(-1, 0).area().west > bounds.west;
        if cell.step > 1 && too_small {
            cell = Cell::around(self.center, cell.step - 1, LAT_MAX);
        }
        let area = cell.area();
        // A side on which the shape ends within the middle cell needs no neighbours.
        let prunes = cell.step >= 2;
        let (skip_south, skip_north) = (prunes && area.south < bounds.south, prunes && area.north > bounds.north);
        let (skip_west, skip_east) = (prunes && area.west < bounds.west, prunes && area.east > bounds.east);
        let mut cells = vec![cell];
        for (east, north) in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
            let skipped = (north < 0 && skip_south)
                || (north > 0 && skip_north)
                || (east < 0 && skip_west)
                || (east > 0 && skip_east);
            let neighbour = cell.beside(east, north);
            // With few cells, neighbours wrap around to the same cell.
            if !skipped && !cells.contains(&neighbour) {
                cells.push(neighbour);
            }
        }
        cells.iter().map(Cell::scores).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PALERMO: Point = Point { lon: 13.361389, lat: 38.115556 };
    const CATANIA: Point = Point { lon: 15.087269, lat: 37.502669 };

    #[test]
    fn known_places() {
        assert_eq!(PALERMO.score(), 3479099956230698);
        assert_eq!(CATANIA.score(), 3479447370796909);
        let palermo = Point::of_score(3479099956230698.0);
        assert_eq!(&palermo.text(), b"sqc8b49rny0");
        let distance = palermo.distance(Point::of_score(CATANIA.score() as f64));
        assert!((distance - 166274.1516).abs() < 0.0001, "{distance}");
    }

    #[test]
    fn spreading_is_reversible() {
        for bits in [0, 1, 0x1234_5678, u32::MAX] {
            assert_eq!(gather(spread(bits)), bits);
        }
    }

    /// What the ranges leave out would be lost to a search.
    #[test]
    fn ranges_cover_what_is_near() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..3000 {
            let center = Point { lon: rng.f64() * 358.0 - 179.0, lat: rng.f64() * 140.0 - 70.0 };
            let reach = 10f64.powf(rng.f64() * 5.0);
            let shape = if rng.bool() {
                Shape::Circle { radius: reach }
            } else {
                Shape::Box { width: reach * rng.f64(), height: reach * rng.f64() }
            };
            let search = Search { center, shape };
            let ranges = search.score_ranges();
            for _ in 0..20 {
                let spread = degrees(reach / EARTH_RADIUS) * 2.0;
                let at = Point {
                    lon: center.lon + (rng.f64() - 0.5) * spread / radians(center.lat).cos(),
                    lat: center.lat + (rng.f64() - 0.5) * spread,
                };
                if !at.is_valid() {
                    continue;
                }
                let score = at.score() as f64;
                let at = Point::of_score(score);
                if search.distance(at).is_some() {
                    assert!(ranges.iter().any(|(from, to)| (*from..*to).contains(&score)), "{search:?} {at:?}");
                }
            }
        }
    }
}
