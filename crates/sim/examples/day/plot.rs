//! Line charts as PNG files: axes, a grid, a legend, nothing else.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use crate::font::rows_of;

pub(crate) type Colour = [u8; 3];

pub(crate) const BLACK: Colour = [32, 32, 36];
const GREY: Colour = [110, 112, 118];
const GRID: Colour = [226, 228, 232];
const MARK: Colour = [170, 172, 180];

/// Colours that differ for the colour-blind too.
pub(crate) const COLOURS: [Colour; 6] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [86, 86, 86], [230, 159, 0]];

/// A picture.
pub(crate) struct Canvas {
    width: i32,
    height: i32,
    pixels: Vec<u8>,
}

/// The nearest pixel; what is far outside is cut off where it is drawn.
#[expect(clippy::cast_possible_truncation, reason = "a pixel's number is small")]
fn pixel(at: f64) -> i32 {
    at.clamp(-1e6, 1e6).round() as i32
}

impl Canvas {
    pub(crate) fn new(width: i32, height: i32) -> Self {
        let size = usize::try_from(width * height * 3).unwrap_or(0);
        Self { width, height, pixels: vec![255; size] }
    }

    fn blend(&mut self, x: i32, y: i32, colour: Colour, part: f64) {
        if !(0..self.width).contains(&x) || !(0..self.height).contains(&y) {
            return;
        }
        let Ok(at) = usize::try_from((y * self.width + x) * 3) else { return };
        for (place, colour) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            let mixed = f64::from(*place) * (1.0 - part) + f64::from(colour) * part;
            *place = u8::try_from(pixel(mixed)).unwrap_or(255);
        }
    }

    /// A line of a width, smooth at its edges.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let square = (dx * dx + dy * dy).max(1e-9);
        let room = width + 1.0;
        for y in pixel(from.1.min(to.1) - room)..=pixel(from.1.max(to.1) + room) {
            for x in pixel(from.0.min(to.0) - room)..=pixel(from.0.max(to.0) + room) {
                let (px, py) = (f64::from(x) - from.0, f64::from(y) - from.1);
                let along = ((px * dx + py * dy) / square).clamp(0.0, 1.0);
                let distance = (px - along * dx).hypot(py - along * dy);
                let part = (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                if part > 0.0 {
                    self.blend(x, y, colour, part);
                }
            }
        }
    }

    fn dot(&mut self, at: (f64, f64), radius: f64, colour: Colour) {
        self.line(at, at, radius * 2.0, colour);
    }

    /// Text whose upper left corner is `at`, each dot of a letter `size` pixels wide.
    pub(crate) fn text(&mut self, at: (i32, i32), size: i32, colour: Colour, text: &str) {
        for (place, letter) in (0_i32..).zip(text.chars()) {
            for (row, bits) in (0_i32..).zip(rows_of(letter)) {
                for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                    let (x, y) = (at.0 + (place * 6 + column) * size, at.1 + row * size);
                    for (x, y) in (0..size * size).map(|dot| (x + dot % size, y + dot / size)) {
                        self.blend(x, y, colour, 1.0);
                    }
                }
            }
        }
    }

    /// Text that ends at, or is centred around, an x.
    fn text_to(&mut self, at: (i32, i32), part: (i32, i32), colour: Colour, text: &str) {
        let width = width_of(text, 2) * part.0 / part.1;
        self.text((at.0 - width, at.1), 2, colour, text);
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let file = BufWriter::new(File::create(path)?);
        let (width, height) = (u32::try_from(self.width)?, u32::try_from(self.height)?);
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        Ok(writer.finish()?)
    }
}

fn width_of(text: &str, size: i32) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(0) * 6 * size
}

/// An axis: what it shows, from where to where, and its marks.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) is_log: bool,
}

impl Axis {
    /// An axis with marks at even steps.
    pub(crate) fn even(label: &str, (from, to): (f64, f64), step: f64) -> Self {
        let count = pixel((to - from) / step);
        let marks = (0..=count).map(|mark| from + f64::from(mark) * step);
        let digits = (0..3).find(|digits| (step * 10_f64.powi(*digits)).fract() < 1e-6);
        let digits = usize::try_from(digits.unwrap_or(3)).unwrap_or(0);
        let marks = marks.map(|mark| (mark, format!("{mark:.digits$}"))).collect();
        Self { label: label.to_owned(), from, to, marks, is_log: false }
    }

    /// From nothing to a little more than `most`, with about five marks.
    pub(crate) fn up_to(label: &str, most: f64) -> Self {
        let rough = (most / 5.0).max(1e-3);
        let tens = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * tens);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(tens * 10.0);
        Self::even(label, (0.0, (most / step).ceil() * step), step)
    }

    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.max(1e-9).ln() } else { value };
        let (from, to) = (scaled(self.from), scaled(self.to));
        ((scaled(value) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// A line of a chart.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: Colour,
    pub(crate) width: f64,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether each point is marked.
    pub(crate) has_dots: bool,
}

impl Line {
    pub(crate) fn new(name: &str, colour: Colour, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour, width: 2.5, points, has_dots: false }
    }
}

/// A chart within a picture.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// Moments that are worth a word.
    pub(crate) moments: Vec<(f64, String)>,
}

/// Room around the lines: left, above, right, below.
const ROOM: (i32, i32, i32, i32) = (84, 66, 36, 62);

impl Chart {
    /// Draws it at `corner` with its `size`.
    pub(crate) fn draw(&self, canvas: &mut Canvas, corner: (i32, i32), size: (i32, i32)) {
        let (left, top) = (corner.0 + ROOM.0, corner.1 + ROOM.1);
        let (right, bottom) = (corner.0 + size.0 - ROOM.2, corner.1 + size.1 - ROOM.3);
        let x_of = |value| f64::from(left) + self.x.place(value) * f64::from(right - left);
        let y_of = |value| f64::from(bottom) - self.y.place(value) * f64::from(bottom - top);
        let (l, t, r, b) = (f64::from(left), f64::from(top), f64::from(right), f64::from(bottom));
        canvas.text((corner.0 + 16, corner.1 + 6), 2, BLACK, &self.title);
        for (value, text) in &self.x.marks {
            canvas.line((x_of(*value), t), (x_of(*value), b), 1.0, GRID);
            canvas.text_to((pixel(x_of(*value)), bottom + 9), (1, 2), GREY, text);
        }
        for (value, text) in &self.y.marks {
            canvas.line((l, y_of(*value)), (r, y_of(*value)), 1.0, GRID);
            canvas.text_to((left - 8, pixel(y_of(*value)) - 7), (1, 1), GREY, text);
        }
        for (at, (value, text)) in (0_i32..).zip(&self.moments) {
            let x = x_of(*value);
            canvas.line((x, t), (x, b), 1.5, MARK);
            canvas.text((pixel(x) + 6, top + 4 + 22 * (at % 2)), 2, GREY, text);
        }
        canvas.line((l, t), (l, b), 1.5, GREY);
        canvas.line((l, b), (r, b), 1.5, GREY);
        canvas.text((corner.0 + 16, corner.1 + 32), 2, GREY, &self.y.label);
        canvas.text_to(((left + right) / 2, bottom + 36), (1, 2), GREY, &self.x.label);
        for line in &self.lines {
            for pair in line.points.windows(2) {
                let ends = [pair[0], pair[1]].map(|(x, y)| (x_of(x), y_of(y)));
                canvas.line(ends[0], ends[1], line.width, line.colour);
            }
            if line.has_dots {
                for (x, y) in &line.points {
                    canvas.dot((x_of(*x), y_of(*y)), 4.5, line.colour);
                }
            }
        }
        self.legend(canvas, right, corner.1 + 32);
    }

    /// Names of the lines, right above them.
    fn legend(&self, canvas: &mut Canvas, right: i32, y: i32) {
        let named = self.lines.iter().filter(|line| !line.name.is_empty());
        let mut x = right;
        for line in named.rev() {
            x -= width_of(&line.name, 2);
            canvas.text((x, y), 2, BLACK, &line.name);
            x -= 36;
            let (from, to) = (f64::from(x), f64::from(x + 28));
            canvas.line((from, f64::from(y + 7)), (to, f64::from(y + 7)), 4.0, line.colour);
            x -= 18;
        }
    }
}
