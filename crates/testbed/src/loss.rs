//! Which frames are lost: each for itself, or in bursts.

/// Longest mean length of a burst, in frames.
const LONGEST_BURST: f64 = 1e6;

/// How frames that departed are lost at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each frame for itself, with a probability between 0 and 1.
    Independent(f64),
    /// In bursts, as radio links lose them (Gilbert and Elliott's model with a good state that loses nothing and a bad one
    /// that loses everything; both last for a geometrically distributed number of frames).
    Bursty {
        /// Share of all frames that is lost in the long run, between 0 and 1.
        share: f64,
        /// Frames that are lost in a row on average, 1 to a million. A share `s` cannot be had with bursts shorter than
        /// `s / (1 - s)`, since at least one frame passes between two of them: such bursts get that length.
        mean_burst: f64,
    },
}

impl Loss {
    /// No frame is lost.
    pub const NONE: Self = Self::Independent(0.0);

    /// Brings every field into its documented range.
    pub(crate) fn normalised(self) -> Self {
        let share_of = |share: f64| if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        match self {
            Self::Independent(share) => Self::Independent(share_of(share)),
            Self::Bursty { share, mean_burst } => {
                let share = share_of(share);
                // All or nothing has no bursts; `max` passes over a length that is no number.
                if share <= 0.0 || share >= 1.0 {
                    return Self::Independent(share);
                }
                Self::Bursty {
                    share,
                    mean_burst: mean_burst.clamp(1.0, LONGEST_BURST).max(share / (1.0 - share)),
                }
            }
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self::NONE
    }
}

/// Where the model stands between two frames.
#[derive(Debug, Default)]
pub(crate) struct LossState {
    in_burst: bool,
}

impl LossState {
    /// Whether the next frame is lost; `draw` gives numbers in `0.0..1.0`.
    pub(crate) fn takes(&mut self, loss: Loss, mut draw: impl FnMut() -> f64) -> bool {
        match loss {
            Loss::Independent(share) => {
                self.in_burst = false;
                share > 0.0 && draw() < share
            }
            Loss::Bursty { share, mean_burst } => {
                let end = 1.0 / mean_burst;
                let begin = end * share / (1.0 - share);
                self.in_burst = if self.in_burst { draw() >= end } else { draw() < begin };
                self.in_burst
            }
        }
    }
}
