//! Medians and spreads of a few samples.

/// Samples in ascending order; at least one.
#[derive(Debug, Clone)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// `None` without a sample.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        (!samples.is_empty()).then_some(Self(samples))
    }

    /// The smallest sample that at least `percent` of all samples do not exceed (nearest rank); of an even number of
    /// samples the median is the mean of the middle two.
    pub(crate) fn percentile(&self, percent: u32) -> f64 {
        let count = self.0.len();
        if percent == 50 && count.is_multiple_of(2) {
            return f64::midpoint(self.0[count / 2 - 1], self.0[count / 2]);
        }
        let rank = (count * percent as usize).div_ceil(100);
        self.0[rank.clamp(1, count) - 1]
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub(crate) fn min(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "samples are passed on, not computed with")]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let spread = Spread::of([5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.min(), spread.median(), spread.max()), (1.0, 3.0, 5.0));
        assert_eq!(spread.mean(), 3.0);
        assert_eq!(spread.percentile(99), 5.0);
        assert_eq!(spread.percentile(20), 1.0);
        assert_eq!(spread.percentile(21), 2.0);
        let hundred = Spread::of((1..=100).map(f64::from)).unwrap();
        assert_eq!((hundred.percentile(99), hundred.median()), (99.0, 50.5));
    }

    #[test]
    fn without_a_sample_there_is_no_spread() {
        assert!(Spread::of([]).is_none());
        assert_eq!(Spread::of([7.0]).unwrap().median(), 7.0);
    }
}
