//! The word, drawn with strokes.

/// A line from one point to another; letters stand on 0 and are 1 high.
pub(crate) type Stroke = ((f64, f64), (f64, f64));

/// A letter: its strokes and how wide it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letter {
    /// How far it reaches to the right of 0.
    pub(crate) width: f64,
    /// The lines that it is made of.
    pub(crate) strokes: &'static [Stroke],
}

/// The letters of "WELKIN".
pub(crate) const WELKIN: [Letter; 6] = [
    Letter {
        width: 1.0,
        strokes: &[
            ((0.0, 1.0), (0.25, 0.0)),
            ((0.25, 0.0), (0.5, 0.8)),
            ((0.5, 0.8), (0.75, 0.0)),
            ((0.75, 0.0), (1.0, 1.0)),
        ],
    },
    Letter {
        width: 0.52,
        strokes: &[
            ((0.0, 0.0), (0.0, 1.0)),
            ((0.0, 1.0), (0.52, 1.0)),
            ((0.0, 0.5), (0.44, 0.5)),
            ((0.0, 0.0), (0.52, 0.0)),
        ],
    },
    Letter { width: 0.48, strokes: &[((0.0, 1.0), (0.0, 0.0)), ((0.0, 0.0), (0.48, 0.0))] },
    Letter {
        width: 0.58,
        strokes: &[
            ((0.0, 0.0), (0.0, 1.0)),
            ((0.0, 0.45), (0.55, 1.0)),
            ((0.14, 0.58), (0.58, 0.0)),
        ],
    },
    Letter { width: 0.0, strokes: &[((0.0, 0.0), (0.0, 1.0))] },
    Letter {
        width: 0.66,
        strokes: &[((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (0.66, 0.0)), ((0.66, 0.0), (0.66, 1.0))],
    },
];
