//! A picture of lines over powers of ten, as SVG: no more than the figures here need.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that people tell apart who see colours differently.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

/// One line, with what its numbers count.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Where powers of ten begin and end, and where they stand.
struct Axis {
    first: f64,
    last: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Self {
        let (mut first, mut last) = (f64::MAX, f64::MIN);
        for power in values.map(f64::log10) {
            (first, last) = (first.min(power.floor()), last.max(power.ceil()));
        }
        // One power at least, and none at all for no values.
        let (first, last) = if first > last { (0.0, 1.0) } else { (first, last.max(first + 1.0)) };
        Self { first, last, begin, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.first) / (self.last - self.first);
        self.begin + share * (self.end - self.begin)
    }

    fn powers(&self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.first), |power| Some(power + 1.0))
            .take_while(|power| *power <= self.last)
    }
}

/// Lines on two logarithmic axes.
pub(crate) fn log_log(title: &str, below: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::new(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::new(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    for power in x.powers() {
        let at = x.at(10_f64.powf(power));
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#ddd\"/>\n\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            ten_to(power)
        );
    }
    for power in y.powers() {
        let at = y.at(10_f64.powf(power));
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            ten_to(power)
        );
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{below}</text>",
        HEIGHT - 12.0
    );
    let mut labels = Vec::new();
    for (line, colour) in lines.iter().zip(COLOURS) {
        add_line(&mut svg, line, colour, (&x, &y));
        if let Some((across, up)) = line.points.last() {
            labels.push((y.at(*up) + 4.0, x.at(*across) + 8.0, colour, line));
        }
    }
    // Names stand under each other where lines end side by side.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = 0.0;
    for (up, across, colour, Line { name, unit, .. }) in labels {
        let up = up.max(free);
        free = up + 15.0;
        let _ = writeln!(
            svg,
            "<text x=\"{across:.1}\" y=\"{up:.1}\" fill=\"{colour}\">{name}, {unit}</text>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn add_line(svg: &mut String, line: &Line, colour: &str, (x, y): (&Axis, &Axis)) {
    svg.push_str("<polyline fill=\"none\" stroke-width=\"2\" stroke=\"");
    let _ = write!(svg, "{colour}\" points=\"");
    for (across, up) in &line.points {
        let _ = write!(svg, "{:.1},{:.1} ", x.at(*across), y.at(*up));
    }
    svg.push_str("\"/>\n");
    for (across, up) in &line.points {
        let (left, top) = (x.at(*across), y.at(*up));
        let _ =
            writeln!(svg, "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

fn ten_to(power: f64) -> String {
    let digits = ["⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"];
    let power = format!("{power:.0}");
    let raised = power.chars().map(|digit| {
        digit.to_digit(10).and_then(|digit| digits.get(digit as usize)).copied().unwrap_or("⁻")
    });
    format!("10{}", raised.collect::<String>())
}
