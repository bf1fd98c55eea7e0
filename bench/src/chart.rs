//! Quantiles of measurements, and charts of them as SVG in which the tail is spread out.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Values by quantile, ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles(Vec<(f64, f64)>);

impl Quantiles {
    /// The quantiles of a histogram, with values divided by `unit`.
    pub(crate) fn of(histogram: &Histogram<u64>, unit: f64) -> Self {
        let point = |place: u32| {
            let quantile = 1.0 - 0.5f64.powf(f64::from(place) / 4.0);
            (quantile, histogram.value_at_quantile(quantile) as f64 * unit)
        };
        // No finer than the number of values allows.
        let halvings = (histogram.len().max(1) as f64).log2();
        Self((0..=(halvings * 4.0) as u32).map(point).collect())
    }
}

/// Some percentiles, µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// The percentiles of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// A line of a chart.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) quantiles: &'a Quantiles,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 400.0;
/// The margins left of the axes, above, right and below.
const MARGINS: (f64, f64, f64, f64) = (80.0, 40.0, 20.0, 60.0);
const COLOURS: [&str; 4] = ["#1f6fb4", "#d1495b", "#2e8b57", "#8e6c8a"];
const TICKS: [(f64, &str); 7] = [
    (0.0, "0"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
];

/// A chart of quantiles as a document of its own, with values in `unit`.
pub(crate) fn of_quantiles(title: &str, unit: &str, lines: &[Line<'_>]) -> String {
    let points = || lines.iter().flat_map(|line| &line.quantiles.0);
    let halvings = |quantile: f64| -(1.0 - quantile).log2();
    let across_max = points().map(|(quantile, _)| halvings(*quantile)).fold(1.0, f64::max);
    let step = round_step(points().map(|(_, value)| *value).fold(0.0, f64::max));
    let up_max = points().map(|(_, value)| (value / step).ceil() * step).fold(step, f64::max);
    let (left, top, right, bottom) = MARGINS;
    let across = |quantile: f64| left + halvings(quantile) / across_max * (WIDTH - left - right);
    let up = |value: f64| HEIGHT - bottom - value / up_max * (HEIGHT - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for (quantile, label) in TICKS.iter().filter(|(quantile, _)| halvings(*quantile) <= across_max) {
        let (x, y) = (across(*quantile), HEIGHT - bottom);
        let _ = writeln!(svg, "<path d=\"M{x:.1} {top}V{y}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", y + 18.0);
    }
    for number in 0..=(up_max / step).round() as u32 {
        let value = f64::from(number) * step;
        let y = up(value);
        let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - right);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 8.0, y + 4.0);
    }
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" transform=\"rotate(-90 16 {0})\">{}</text>",
        HEIGHT / 2.0,
        escaped(unit)
    );
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let points: Vec<String> =
            line.quantiles.0.iter().map(|(at, value)| format!("{:.1},{:.1}", across(*at), up(*value))).collect();
        let points = points.join(" ");
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        let x = left + place as f64 * 180.0;
        let y = HEIGHT - 14.0;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", escaped(line.name));
    }
    svg + "</svg>\n"
}

/// A step of 1, 2 or 5 times a power of ten, of which about five reach `most`.
fn round_step(most: f64) -> f64 {
    let rough = (most / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles(values: impl IntoIterator<Item = u64>) -> Quantiles {
        let mut histogram = Histogram::new(3).expect("three digits");
        values.into_iter().for_each(|value| histogram.record(value).expect("it resizes"));
        Quantiles::of(&histogram, 0.01)
    }

    #[test]
    fn quantiles_rise_and_end_no_finer_than_the_values() {
        let Quantiles(points) = quantiles((1..=1000).map(|value| value * 100));
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        let median = points.iter().find(|(quantile, _)| *quantile == 0.5).expect("the median is one of them");
        assert!((499.0..502.0).contains(&median.1), "{median:?}");
        assert!(points.last().is_some_and(|(quantile, _)| *quantile < 1.0 - 1.0 / 1100.0));
    }

    #[test]
    fn every_point_lies_on_the_sheet_and_text_is_escaped() {
        let (one, other, none) = (quantiles([3, 4_000_000]), quantiles(std::iter::repeat_n(7, 100_000)), quantiles([]));
        let lines = [("a < b & c", &one), ("d", &other), ("e", &none)];
        let svg = of_quantiles("<title>", "ns", &lines.map(|(name, quantiles)| Line { name, quantiles }));
        assert!(svg.contains("&lt;title&gt;") && svg.contains("a &lt; b &amp; c") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<polyline").count(), 3);
        for points in svg.split("points=\"").skip(1) {
            for point in points.split('"').next().expect("it is closed").split(' ') {
                let (x, y) = point.split_once(',').expect("a pair");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
    }

    #[test]
    fn steps_are_round_numbers() {
        for (most, step) in [(9.0, 2.0), (25.0, 5.0), (26.0, 10.0), (0.04, 0.01), (5000.0, 1000.0)] {
            assert!((round_step(most) / step - 1.0).abs() < 1e-9, "{most}: {}", round_step(most));
        }
    }
}
