//! Lengths of messages, and when they come.

use std::sync::LazyLock;

/// The generator `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number in 0..1.
    pub const fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An interval of a Poisson process with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }

    /// 32 bytes for a core's seed.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        seed
    }
}

/// A distribution of lengths in the papers (SIGCOMM'18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Facebook's memcached servers: 189 bytes in the mean.
    W1,
    /// Google's search application: 442 bytes.
    W2,
    /// All requests in a Google data centre: 2.9 KB.
    W3,
    /// Facebook's Hadoop cluster: 128 KB.
    W4,
    /// Web search, the workload of DCTCP: 2.6 MB.
    W5,
}

impl Workload {
    /// All five.
    pub const ALL: [Self; 5] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W5];

    /// As the papers name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W4 => "W4",
            Self::W5 => "W5",
        }
    }

    /// Lengths and which part of all messages is no longer. Between two of them lengths are spread evenly: the
    /// tables of the paper are finer, so means are up to 4 % off.
    #[must_use]
    pub fn points(self) -> &'static [(u32, f64)] {
        &TABLES[self as usize]
    }

    /// Bytes of a message in the mean.
    #[must_use]
    pub fn mean(self) -> f64 {
        self.integral(f64::midpoint)
    }

    /// What `of` is in the mean, where it is given the ends of stretches of even density.
    fn integral(self, of: impl Fn(f64, f64) -> f64) -> f64 {
        let points = self.points();
        let first = f64::from(points[0].0);
        let mut sum = of(first, first) * points[0].1;
        for pair in points.windows(2) {
            sum += of(f64::from(pair[0].0), f64::from(pair[1].0)) * (pair[1].1 - pair[0].1);
        }
        sum
    }

    /// Bytes of a message's first `limit`, in the mean.
    #[must_use]
    pub fn mean_of_first(self, limit: u32) -> f64 {
        let limit = f64::from(limit);
        self.integral(|low, high| {
            if high <= limit {
                f64::midpoint(low, high)
            } else if low >= limit {
                limit
            } else {
                let below = (limit - low) / (high - low);
                below * f64::midpoint(low, limit) + (1.0 - below) * limit
            }
        })
    }

    /// The length at a place of the distribution, 0 to 1.
    #[must_use]
    pub fn quantile(self, at: f64) -> u32 {
        let points = self.points();
        let index = points.partition_point(|(_, cumulative)| *cumulative < at);
        let (high, above) = points[index.min(points.len() - 1)];
        let Some((low, below)) = index.checked_sub(1).map(|index| points[index]) else { return high };
        let part = ((at - below) / (above - below)).clamp(0.0, 1.0);
        low + (f64::from(high - low) * part).round() as u32
    }

    /// A message's length.
    pub fn sample(self, rng: &mut Rng) -> u32 {
        self.quantile(rng.fraction()).max(1)
    }

    /// Lengths that divide the first `limit` bytes of all messages into `levels` parts of the same number of bytes.
    #[must_use]
    pub fn equal_shares(self, limit: u32, levels: usize) -> Vec<u32> {
        let steps = 100_000;
        let lengths = (0..steps).map(|step| self.quantile((f64::from(step) + 0.5) / f64::from(steps)));
        let lengths: Vec<u32> = lengths.collect();
        let all: u64 = lengths.iter().map(|length| u64::from(*length.min(&limit))).sum();
        let mut shares = Vec::new();
        let mut sum = 0;
        for length in lengths {
            sum += u64::from(length.min(limit));
            if shares.len() + 1 < levels && sum * levels as u64 >= all * (shares.len() as u64 + 1) {
                shares.push(length);
            }
        }
        shares
    }
}

/// All five as they are used.
static TABLES: LazyLock<[Vec<(u32, f64)>; 5]> = LazyLock::new(|| [W1, W2, W3, W4, W5].map(table));

fn table(text: &str) -> Vec<(u32, f64)> {
    let pair = |word: &str| {
        let (length, part) = word.split_once(':')?;
        Some((length.parse().ok()?, part.parse().ok()?))
    };
    text.split_whitespace().filter_map(pair).collect()
}

// Lengths, and which part of all messages is no longer: thinned from the tables of the papers' generators.

const W1: &str = "
    8:0.31094 10:0.32768 11:0.41757 14:0.44155 15:0.47 19:0.481284 24:0.493503 29:0.504397 34:0.514751
    39:0.526373 44:0.53665 50:0.547846 56:0.56 63:0.573141 69:0.583657 75:0.594741 82:0.606393 89:0.618602
    97:0.631355 106:0.644628 116:0.658394 127:0.672612 139:0.687238 151:0.702217 161:0.712367 170:0.722626
    181:0.732971 191:0.743379 203:0.753825 215:0.764283 228:0.774728 242:0.785131 257:0.795465 272:0.805703
    289:0.815817 315:0.830696 344:0.845147 376:0.859087 410:0.872441 448:0.885142 489:0.897136 534:0.908379
    582:0.918841 655:0.931546 736:0.942824 852:0.954965 986:0.965051 1210:0.976078 1621:0.986702
    1876:0.990268 1932:0.99087 1989:0.991438 2048:0.991974 2109:0.99248 2236:0.993407 2371:0.994229
    2514:0.994956 2665:0.995599 2826:0.996165 3085:0.996889 3367:0.997484 3785:0.998112 4381:0.998691
    4924:0.999027 6596:0.999545 9368:0.999821 13305:0.999931 18896:0.999974 26835:0.99999 38111:0.999996
    54125:0.999999 76867:1 100000:1";

const W2: &str = "
    8:0.170108 32:0.189008 34:0.202751 36:0.216494 38:0.230237 40:0.243979 43:0.257722 46:0.271465
    49:0.285208 53:0.29895 58:0.312693 64:0.326436 91:0.335596 128:0.341703 135:0.353917 142:0.36613
    151:0.378344 160:0.390558 171:0.402771 183:0.414985 197:0.427199 213:0.439412 233:0.451626 256:0.46384
    269:0.508496 284:0.553152 301:0.597808 320:0.642464 341:0.68712 366:0.731776 394:0.776432 427:0.821088
    465:0.865745 512:0.910401 602:0.924713 731:0.939026 931:0.953339 1205:0.96498 1707:0.976431
    2409:0.985305 3151:0.99103 3413:0.992461 3724:0.993892 4096:0.995324 4551:0.995944 5120:0.996564
    5851:0.997184 6827:0.997804 8192:0.998425 11703:0.998711 17246:0.998926 21845:0.999021 32768:0.99914
    46811:0.999266 65536:0.999349 93623:0.999662 137971:0.999881 201649:0.999944 291271:0.999977
    436907:0.999981 631896:0.999986 912974:0.999991 1297841:0.999995 2243665:0.999998 3529904:1";

const W3: &str = "
    8:0.064883 32:0.097324 36:0.108913 40:0.120503 46:0.132092 53:0.143681 64:0.155271 70:0.187988
    77:0.220705 85:0.253422 96:0.286139 110:0.318856 128:0.351573 137:0.369864 146:0.388155 158:0.406446
    171:0.424737 186:0.443028 205:0.461319 228:0.47961 256:0.497901 268:0.523994 282:0.550086 296:0.576179
    313:0.602272 331:0.628365 352:0.654457 375:0.68055 402:0.706643 433:0.732736 469:0.758828 512:0.784921
    551:0.796104 597:0.807286 652:0.818469 717:0.829652 796:0.840834 896:0.852017 1024:0.8632 1152:0.873347
    1317:0.883494 1536:0.893641 1843:0.903788 2286:0.914298 2979:0.92517 4163:0.935902 5079:0.946318
    6512:0.956734 8724:0.966795 11995:0.977236 16861:0.985017 23790:0.988248 31013:0.990079 34000:0.990609
    37683:0.991146 42262:0.991684 48106:0.992222 55827:0.992759 65902:0.993299 70638:0.993815 76106:0.994332
    82493:0.994848 90049:0.995364 99130:0.995881 110247:0.996397 124173:0.996914 147300:0.997421
    187473:0.997926 257775:0.998431 339899:0.998931 356516:0.999006 501350:0.99945 705750:0.999632
    990302:0.999743 1401165:0.999823 1996529:0.999881 2834317:0.999922 3983524:0.99995 5649438:0.99997
    8231141:0.999985 11837511:0.999995 15158197:1";

const W4: &str = "
    53:0.00074 77:0.00518 109:0.0089 154:0.0119 217:0.0149 237:0.0253 259:0.0357 285:0.04645 303:0.06055
    308:0.07765 313:0.09475 318:0.11185 323:0.12895 331:0.14401 340:0.15703 350:0.17005 360:0.18307
    371:0.19609 385:0.20668 410:0.21688 430:0.22709 446:0.23936 463:0.25163 480:0.2639 491:0.28342
    502:0.30294 513:0.32246 525:0.34198 537:0.3615 549:0.38102 561:0.40054 574:0.42006 587:0.43958
    600:0.4591 615:0.47062 630:0.48214 646:0.49366 662:0.50518 679:0.5167 696:0.52729 713:0.53788
    731:0.54847 755:0.55926 787:0.57136 833:0.5822 900:0.59305 992:0.60415 1108:0.61525 1251:0.62635
    1385:0.63716 1547:0.64885 1611:0.6591 1813:0.66952 2627:0.67842 3699:0.68586 5210:0.6933 6929:0.70373
    10373:0.7108 15816:0.7147 24115:0.7186 33822:0.72492 38377:0.73515 41214:0.74538 43811:0.75654
    45356:0.76656 46763:0.77676 48215:0.78996 49408:0.80112 50632:0.81228 61321:0.82266 70722:0.8327
    75795:0.84497 78307:0.85685 80903:0.86873 91238:0.8801 104584:0.89036 120373:0.90056 141975:0.91076
    169859:0.92105 200755:0.93122 231530:0.94141 278129:0.95164 406302:0.96001 588723:0.9656 832442:0.97025
    1211116:0.97582 1769244:0.9814 2527289:0.9883 3430822:0.9909 3997329:0.9922 4657379:0.9935
    5426418:0.9948 6322443:0.9961 7366423:0.9974 8582787:0.9987 10000000:1";

const W5: &str = "
    1430:0.025 2860:0.05 4290:0.075 5720:0.1 7150:0.125 8580:0.15 11440:0.164286 14700:0.178571
    17640:0.192857 20580:0.216667 22050:0.233333 23520:0.25 24990:0.266667 26460:0.283333 27930:0.3
    30870:0.314286 33810:0.328571 36750:0.342857 39690:0.357143 42630:0.371429 45570:0.385714 48510:0.4
    51450:0.413 54390:0.426 57330:0.439 60270:0.452 63210:0.465 66150:0.478 69090:0.491 72030:0.504
    74970:0.517 77910:0.53 95550:0.5405 113190:0.551 130830:0.5615 148470:0.572 166110:0.5825 183750:0.593
    220500:0.603184 299880:0.613296 392490:0.625094 490980:0.63764 588000:0.65 667380:0.660112
    765870:0.672659 862890:0.685019 942270:0.695131 1053990:0.707508 1152480:0.717568 1250970:0.727628
    1372980:0.74009 1494990:0.752553 1593480:0.762613 1715490:0.775075 1813980:0.785135 1935990:0.797598
    2253510:0.81 2547510:0.82 2841510:0.83 3135510:0.84 3429510:0.85 3723510:0.86 4017510:0.87 4311510:0.88
    4605510:0.89 4899510:0.9 10291470:0.902505 12740490:0.915 14701470:0.925006 17150490:0.937501
    19111470:0.947506 21560490:0.960002 23521470:0.970007 25970490:0.982502 27440490:0.990002
    27931470:0.992507 28420980:0.995005 28910490:0.997502 29400000:1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_rise_from_the_first_to_all() {
        for workload in Workload::ALL {
            let points = workload.points();
            assert!(
                points.len() > 60 && points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                "{}",
                workload.name()
            );
            assert!(points.last().is_some_and(|(_, all)| (all - 1.0).abs() < 1e-9), "{}", workload.name());
        }
    }

    #[test]
    fn means_are_those_of_the_papers() {
        let means = [189.2, 441.6, 2927.7, 127_796.6, 2_564_689.7];
        for (workload, mean) in Workload::ALL.into_iter().zip(means) {
            let ratio = workload.mean() / mean;
            assert!((0.96..1.04).contains(&ratio), "{}: {ratio}", workload.name());
        }
    }

    #[test]
    fn samples_have_the_mean_of_their_distribution() {
        let mut rng = Rng::new(1);
        for workload in Workload::ALL {
            let count = 200_000;
            let sum: f64 = (0..count).map(|_| f64::from(workload.sample(&mut rng))).sum();
            let ratio = sum / f64::from(count) / workload.mean();
            assert!((0.9..1.1).contains(&ratio), "{}: {ratio}", workload.name());
        }
    }

    #[test]
    fn the_share_of_unscheduled_bytes_falls_with_longer_messages() {
        let shares = Workload::ALL.map(|workload| workload.mean_of_first(9328) / workload.mean());
        assert!(shares.is_sorted_by(|a, b| a > b), "{shares:?}");
        assert!(shares[0] > 0.95 && shares[4] < 0.01, "{shares:?}");
    }

    #[test]
    fn shares_divide_bytes_and_not_messages() {
        let cuts = Workload::W3.equal_shares(9328, 4);
        assert_eq!(cuts.len(), 3);
        assert!(cuts.is_sorted() && cuts[0] > Workload::W3.quantile(0.5), "{cuts:?}");
    }
}
