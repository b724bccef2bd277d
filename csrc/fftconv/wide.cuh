// The transform in float32, without tensor cores: filters to spectra, gradients of spectra to gradients of filters.
//
// Of a plan of L points, split s of kSplits takes the frequencies m = s + kSplits m': the input, folded by
// e(n1 (s + 1/4) / kSplits) and turned by e(r (s + 1/4) / L), goes through a plain DFT of kN = L / kSplits points in
// shared memory, one radix that fits and then radix 16, in place: digit m'_j ends where n'_j stood. What is loaded goes
// through the first stage on its way, and the last one leaves rows of 16 points in registers.
#pragma once

#include "dft.cuh"
#include "io.cuh"
#include "tables.cuh"

namespace dnasm {

DNASM_SHARED_CODE int default_wide_threads(int points) { return points < 512 ? 32 : points / 16; }

// kQuarter: frequencies s + 1/4; else s.
template <int kPoints, int kThreadsOfBlock = default_wide_threads(kPoints), int kSplitsOfPlan = 1, bool kQuarter = true>
struct Wide {
  static constexpr int kN = kPoints, kThreads = kThreadsOfBlock, kSplits = kSplitsOfPlan, kRows = kN / 16;
  // What leaves a thread so many registers; measured on an H200: 64 are enough where no more than 16 points are a thread's.
  DNASM_SHARED_CODE static int blocks_per_sm(int registers) { return kThreads * registers > 65536 ? 1 : 65536 / registers / kThreads; }
  static constexpr size_t kSharedBytes = (kN + kN / 16 + kN / 256) * sizeof(Complex) + 256;
  float* scratch;   // for block_sum
  Complex* points;

  DNASM_DEVICE Wide()
      : scratch(reinterpret_cast<float*>(dynamic_shared())), points(reinterpret_cast<Complex*>(dynamic_shared() + 256)) {}
  // Rows would all start in one bank. Without carries padded(i + j) = padded(i) + padded(j).
  DNASM_SHARED_CODE static int padded(int i) { return i + i / 16 + i / 256; }
  DNASM_DEVICE Complex& at(int i) const { return points[padded(i)]; }
  // e(n (s + 1/4) / L); exact up to L = 2^22
  static DNASM_DEVICE Complex turn(int n, int s) {
    constexpr uint32_t kLength = kN * kSplits;
    if constexpr (kSplits == 1 && !kQuarter) return {1, 0};
    const uint32_t quarters = static_cast<uint32_t>(n) * static_cast<uint32_t>(4 * s + kQuarter) & (4 * kLength - 1);
    return cos_sin_pi(static_cast<float>(quarters) * (0.5f / static_cast<float>(kLength)));
  }
  // The odd radix comes before the last two, plans' inner 16 x 16 frequencies; past 4096 points a thread's first.
  DNASM_SHARED_CODE static int radix(int size) {
    return size > 4096 ? kN / kThreads : size > 256 ? size / 256 : 16;
  }
  static constexpr int kFirst = radix(kN), kStride = kN / kFirst;

  // act(i) for a thread's share of kCount things. No loop where there is one: what does not change would be kept across it.
  template <int kCount, class Act>
  static DNASM_DEVICE void each(const Act& act) {
    const int mine = thread_index();
    if constexpr (kCount == kThreads) act(mine);
    else if constexpr (kCount < kThreads) {
      if (mine < kCount) act(mine);
    } else {
      for (int i = mine; i < kCount; i += kThreads) act(i);
    }
  }

  // The stage of radix kR on blocks of kSize points.
  template <int kSize, int kR, bool kInverse>
  DNASM_DEVICE void stage() const {
    constexpr int kApart = kSize / kR;
    static_assert(kThreads % kApart == 0);  // all of a thread's butterflies stand in one column
    Complex w[kR];
    powers(column_root<kSize>(thread_index() % kApart), w);
    each<kN / kR>([&](int b) {
      Complex* at = points + padded(b / kApart * kSize + b % kApart);
      Complex v[kR];
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) {
        v[m] = at[padded(m * kApart)];
        if (kInverse && m) v[m] = v[m] * conjugate(w[m]);
      }
      small_dft<kR, kInverse>(v);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) {
        if (!kInverse && m) v[m] = v[m] * w[m];
        at[padded(m * kApart)] = v[m];
      }
    });
    sync_block();
  }
  template <int kSize>  // e(j / kSize)
  static DNASM_DEVICE Complex column_root(int j) {
    return cos_sin_pi(static_cast<float>(j) * (2.0f / static_cast<float>(kSize)));
  }
  // All stages between the first and the last.
  template <bool kInverse, int kSize = kStride>
  DNASM_DEVICE void middle() const {
    if constexpr (kSize > 16) {
      constexpr int kR = radix(kSize);
      if constexpr (kInverse) middle<true, kSize / kR>();
      stage<kSize, kR, kInverse>();
      if constexpr (!kInverse) middle<false, kSize / kR>();
    }
  }
  // The last stage of row r, points 16 r to 16 r + 15, and its adjoint.
  DNASM_DEVICE void take_row(int r, Complex (&v)[16]) const {
    const Complex* at = points + padded(16 * r);
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) v[m] = at[m];
    small_dft<16, false>(v);
  }
  DNASM_DEVICE void put_row(int r, Complex (&v)[16]) const {
    Complex* at = points + padded(16 * r);
    small_dft<16, true>(v);
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) at[m] = v[m];
  }

  // A thread's columns of the first stage, kThreads apart, each from the one before: few sines and cosines.
  struct Columns {
    Complex root, turn, root_step, turn_step;  // e(j / kN), e(j (s + 1/4) / L)
    explicit DNASM_DEVICE Columns(int s)
        : root(column_root<kN>(thread_index())), turn(Wide::turn(thread_index(), s)), root_step(column_root<kN>(kThreads)),
          turn_step(Wide::turn(kThreads, s)) {}
    DNASM_DEVICE void next() {
      if (kStride > kThreads) root = root * root_step, turn = turn * turn_step;
    }
    DNASM_DEVICE void twiddles(Complex (&w)[kFirst]) const {
      if constexpr (kQuarter) progression(turn, root, root, w);
      else powers(root, w);
    }
  };
  // e(m kStride (s + 1/4) / L); constants, where there is one split
  static DNASM_DEVICE void row_turns(int s, Complex (&w)[kFirst]) {
    constexpr Complex kSteps[5] = {{0.70710678118654752f, 0.70710678118654752f}, {0.92387953251128674f, 0.38268343236508977f},
                                   {0.98078528040323045f, 0.19509032201612827f}, {0.99518472667219693f, 0.098017140329560604f},
                                   {0.99879545620517239f, 0.049067674327418015f}};  // e(1 / 8), ... e(1 / 128)
    constexpr int kWhich = kFirst >= 32 ? 4 : kFirst >= 16 ? 3 : kFirst >= 8 ? 2 : kFirst >= 4 ? 1 : 0;
    powers(kSplits == 1 ? kSteps[kWhich] : turn(kStride, s), w);
  }

  // Frequencies s + kSplits m' of load(n), n < L, real or complex, unnormalised, but for the last stage.
  template <class Load>
  DNASM_DEVICE void begin(int s, const Load& load) const {
    Complex step[kFirst], w[kFirst];
    const Complex fold_step = turn(kN, s);
    Columns column(s);
    each<kStride>([&](int j) {
      Complex v[kFirst];
      if constexpr (kSplits == 1) {
        decltype(load(0)) x[kFirst];
        DNASM_UNROLL
        for (int m = 0; m < kFirst; ++m) x[m] = load(j + m * kStride);
        row_turns(s, step);
        DNASM_UNROLL
        for (int m = 0; m < kFirst; ++m) v[m] = kQuarter ? x[m] * step[m] : widen(x[m]);
      } else {
        Complex fold{1, 0};
        DNASM_UNROLL
        for (int m = 0; m < kFirst; ++m) v[m] = load(j + m * kStride) * fold;
        DNASM_UNROLL_ONCE
        for (int n1 = 1; n1 < kSplits; ++n1) {
          fold = fold * fold_step;
          DNASM_UNROLL
          for (int m = 0; m < kFirst; ++m) v[m] = v[m] + load(j + m * kStride + n1 * kN) * fold;
        }
        row_turns(s, step);
        DNASM_UNROLL
        for (int m = 1; m < kFirst; ++m) v[m] = v[m] * step[m];
      }
      small_dft<kFirst, false>(v);
      column.twiddles(w);
      Complex* at = points + padded(j);
      DNASM_UNROLL
      for (int m = 0; m < kFirst; ++m) at[padded(m * kStride)] = m || kQuarter ? v[m] * w[m] : v[m];
      column.next();
    });
    sync_block();
    middle<false>();
  }
  // Adjoint, behind the rows: emit(n, what frequencies s + kSplits m' add to element n).
  template <class Emit>
  DNASM_DEVICE void finish(int s, const Emit& emit) const {
    middle<true>();
    const Complex fold_step = conjugate(turn(kN, s));
    Columns column(s);
    each<kStride>([&](int j) {
      Complex v[kFirst], w[kFirst], fold{1, 0};
      column.twiddles(w);
      const Complex* at = points + padded(j);
      DNASM_UNROLL
      for (int m = 0; m < kFirst; ++m) v[m] = m || kQuarter ? at[padded(m * kStride)] * conjugate(w[m]) : at[padded(m * kStride)];
      small_dft<kFirst, true>(v);
      row_turns(s, w);
      DNASM_UNROLL
      for (int m = 1; m < kFirst && kQuarter; ++m) v[m] = v[m] * conjugate(w[m]);
      DNASM_UNROLL_ONCE
      for (int n1 = 0; n1 < kSplits; ++n1) {
        DNASM_UNROLL
        for (int m = 0; m < kFirst; ++m) emit(j + m * kStride + n1 * kN, kSplits == 1 ? v[m] : v[m] * fold);
        fold = fold * fold_step;
      }
      column.next();
    });
    sync_block();
  }
  // visit(r, v): the last 16 frequencies' row r, a thread's own; put_row may hand it back.
  template <class Visit>
  DNASM_DEVICE void rows(const Visit& visit) const {
    each<kRows>([&](int r) {
      Complex v[16];
      take_row(r, v);
      visit(r, v);
    });
    sync_block();
  }
  // fill(r, v): row r, then all the way back.
  template <class Fill, class Emit>
  DNASM_DEVICE void inverse(int s, const Fill& fill, const Emit& emit) const {
    each<kRows>([&](int r) {
      Complex v[16];
      fill(r, v);
      put_row(r, v);
    });
    sync_block();
    finish(s, emit);
  }
};

DNASM_DEVICE float load_number(const void* data, int dtype, int64_t i) {
  switch (dtype) {
    case kFloat16: return half_to_float(static_cast<const uint16_t*>(data)[i]);
    case kBfloat16: return bits_float(static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16);
    case kFloat64: return static_cast<float>(static_cast<const double*>(data)[i]);
    default: return static_cast<const float*>(data)[i];
  }
}

// The sum over a block of each thread's x, in a fixed order; the result in all threads.
template <int kThreads>
DNASM_DEVICE float block_sum(float x, float* scratch) {
  DNASM_UNROLL
  for (int mask = 16; mask; mask /= 2) x += shuffle_xor(x, mask);
  if (thread_index() % 32 == 0) scratch[thread_index() / 32] = x;
  sync_block();
  x = 0;
  for (int w = 0; w < kThreads / 32; ++w) x += scratch[w];
  sync_block();
  return x;
}

// Tap n of a channel's filter as it meets the transform: the future, with lags -1, -2, ..., stands at L - 1, L - 2, ...
// times -i, since e(-n) = -i e(L - n).
struct FilterTaps {
  int64_t past, future;  // first elements
  int plan, taps, future_taps;  // taps that count: those that reach into the sequence
  bool both;

  DNASM_DEVICE FilterTaps(const Params& p, int channel, int plan_length)
      : past(channel * (p.bidirectional ? 2 : 1) * p.filter_length),
        future(past + p.filter_length),
        plan(plan_length),
        taps(static_cast<int>(p.filter_length < p.length ? p.filter_length : p.length)),
        future_taps(static_cast<int>(p.filter_length < p.length ? p.filter_length : p.length - 1)),
        both(p.bidirectional) {}
  // The taps themselves, where they are plain numbers.
  DNASM_DEVICE const float* plain(const Params& p) const {
    return p.filter_dtype == kFloat32 && !both ? static_cast<const float*>(p.filter) + past : nullptr;
  }
  DNASM_DEVICE int ahead(int n) const { return plan - n - 1; }  // the future's tap at position n
  DNASM_DEVICE bool has_past(int n) const { return n < taps; }
  DNASM_DEVICE bool has_future(int n) const { return both && ahead(n) < future_taps; }
  // What position n of a transform says of the taps' gradients, `more` to what is there already.
  DNASM_DEVICE void store(float* dk, int n, Complex z, bool more) const {
    if (has_past(n)) dk[past + n] = z.re + (more ? dk[past + n] : 0.0f);
    if (has_future(n)) {
      float& out = dk[future + ahead(n)];
      out = (more ? out : 0.0f) - z.im;
    }
  }
  // Lags from `length` on reach into no sequence; `first` and `step`: a thread's share of them.
  DNASM_DEVICE void clear_rest(float* dk, int64_t count, int64_t first, int64_t step) const {
    for (int64_t n = taps + first; n < count; n += step) dk[past + n] = 0;
    for (int64_t n = future_taps + first; both && n < count; n += step) dk[future + n] = 0;
  }
};

DNASM_DEVICE Complex load_tap(const Params& p, const FilterTaps& taps, int n) {
  Complex z{0, 0};
  if (taps.has_past(n)) z.re = load_number(p.filter, p.filter_dtype, taps.past + n);
  if (taps.has_future(n)) z.im = -load_number(p.filter, p.filter_dtype, taps.future + taps.ahead(n));
  return z;
}
// use(load) with a load(n) of the filter that reads no more than it has to; `bound` sums the absolute values.
template <class Use>
DNASM_DEVICE void with_taps(const Params& p, const FilterTaps& taps, float& bound, const Use& use) {
  if (const float* plain = taps.plain(p)) {
    use([&, plain](int n) {
      const float x = taps.has_past(n) ? plain[n] : 0.0f;
      bound += fabsf(x);
      return x;
    });
  } else {
    use([&](int n) {
      const Complex z = load_tap(p, taps, n);
      bound += fabsf(z.re) + fabsf(z.im);
      return z;
    });
  }
}

// A plan's points in one block, at most kMost at a time: the other splits follow, or go to other blocks.
template <class P, int kMost = 8192, bool kQuarter = true, int kPoints = (P::kLength < kMost ? P::kLength : kMost)>
struct PlanWide : Wide<kPoints, kPoints == 8192 ? 256 : default_wide_threads(kPoints), P::kLength / kPoints, kQuarter> {
  static constexpr bool kFew = PlanWide::Wide::kFirst <= 16;  // points a thread
  using W = typename PlanWide::Wide;

  // Where a row lies in a plan's spectrum, see plan.cuh: halves of words 0 and 2, or 1 and 3, of four lanes' quads. Its
  // other halves are those of the row that lane ^ kPartner holds.
  struct Place {
    static constexpr int kPartner = P::kDirect ? 8 : 1;
    int tile, lane, odd;
    DNASM_DEVICE Place(int s, int r) {
      constexpr int kSecond = W::kN < 256 * W::kFirst ? 1 : W::kN / 256 / W::kFirst;  // radix of a tile's second digit
      const int digits = r / 16 / kSecond + W::kFirst * (r / 16 % kSecond);
      const int outer = s + W::kSplits * digits, i = r % 16;  // m1 + R1 m2
      tile = P::kDirect ? 0 : outer % P::kR1 * P::kR2 + outer / P::kR1;
      lane = 4 * (P::kDirect ? i % 8 : i / 2), odd = P::kDirect ? i / 8 : i % 2;
    }
  };
  // A filter's frequencies, times 2^-exponent, to where kernels of the plan read them.
  DNASM_DEVICE void write_spectrum(int s, int exponent, char* to) const {
    const float scale = power_of_two(-exponent);
    constexpr int kLanes = W::kRows < 32 ? 32 : W::kRows;  // whole warps shuffle
    W::template each<kLanes>([&](int at) {
      const Place place(s, at % W::kRows);
      Complex v[16];
      this->take_row(at % W::kRows, v);
      Quad re[2], im[2];
      DNASM_UNROLL
      for (int q = 0; q < 2; ++q) {
        DNASM_UNROLL
        for (int j = 0; j < 2; ++j) {
          DNASM_UNROLL
          for (int k = 0; k < 2; ++k) {  // lanes q and q + 2
            const Complex a = scale * v[4 * q + j + 8 * k], b = scale * v[4 * q + j + 8 * k + 2];
            re[q].w[2 * j + k] = pack_half2(a.re, b.re), im[q].w[2 * j + k] = pack_half2(a.im, b.im);
          }
        }
        trade(re[q], place.odd), trade(im[q], place.odd);
      }
      Quad* out = reinterpret_cast<Quad*>(to) + place.tile * 64 + place.lane + 2 * place.odd;
      DNASM_UNROLL
      for (int q = 0; q < 2 && at < W::kRows; ++q) out[q] = re[q], out[q + 32] = im[q];
    });
  }
  // Of both partners' words j of lanes q and q + 2: an even row keeps q and gets its partner's, an odd one q + 2.
  static DNASM_DEVICE void trade(Quad& x, bool odd) {
    DNASM_UNROLL
    for (int j = 0; j < 2; ++j) {
      const uint32_t mine = odd ? x.w[2 * j + 1] : x.w[2 * j], theirs = odd ? x.w[2 * j] : x.w[2 * j + 1];
      const uint32_t got = float_bits(shuffle_xor(bits_float(theirs), Place::kPartner));
      x.w[2 * j] = odd ? got : mine, x.w[2 * j + 1] = odd ? mine : got;
    }
  }
  // Row r's sum of `count` partial spectra, in FilterGradient's order and `stride` floats apart, times `scale`.
  DNASM_DEVICE void read_partials(int s, const float* from, int count, int64_t stride, float scale, int r, Complex (&v)[16]) const {
    const Place place(s, r);
    const Complex* pairs = reinterpret_cast<const Complex*>(from) + place.tile * 256 + place.lane * 2 + place.odd;
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) v[m] = {0, 0};
    for (int k = 0; k < count; ++k, pairs += stride / 2) {
      DNASM_UNROLL
      for (int q = 0; q < 4; ++q) {
        DNASM_UNROLL
        for (int j = 0; j < 2; ++j) {
          const Complex re = pairs[j * 64 + q * 2], im = pairs[(j + 2) * 64 + q * 2];
          Complex &a = v[4 * q + j], &b = v[4 * q + j + 2];
          a = a + Complex{re.re, im.re}, b = b + Complex{re.im, im.im};
        }
      }
    }
    DNASM_UNROLL
    for (int m = 0; m < 16; ++m) v[m] = scale * v[m];
  }
};

constexpr int kSpectrumTop = 4;  // the scaled spectrum stays below 2^(kSpectrumTop + 1)

// Of a filter whose taps' absolute values sum to `bound`, which is at least max |K|.
DNASM_DEVICE int spectrum_exponent(float bound, int top) {
  return static_cast<int>(float_bits(bound) >> 23 & 255) - 127 - top;
}

template <class P>
DNASM_SHARED_CODE int table_blocks() {
  constexpr int kRows = PlanWide<P>::kThreads / 32;
  return (P::Rows::kRows + kRows - 1) / kRows;
}
// The first blocks make the tables, the others spectra.
template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::blocks_per_sm(PlanWide<P>::kFew ? 64 : 128))
spectrum_kernel(const Params p, const SpectrumLayout layout) {
  using W = PlanWide<P>;
  constexpr int kTableBlocks = table_blocks<P>();
  if (block_index() < kTableBlocks) {
    const int row = block_index() * (W::kThreads / 32) + thread_index() / 32;
    if (row < P::Rows::kRows) write_table_row<P>(static_cast<Quad*>(p.spectrum), row, thread_index() % 32);
    return;
  }
  const W wide;
  const int block = block_index() - kTableBlocks, channel = block / W::kSplits, s = block % W::kSplits;
  const FilterTaps taps(p, channel, P::kLength);
  float bound = 0;
  with_taps(p, taps, bound, [&](const auto& load) { wide.begin(s, load); });
  bound = block_sum<W::kThreads>(bound, wide.scratch);
  const int exponent = spectrum_exponent(bound, kSpectrumTop);
  if (s == 0 && thread_index() == 0) layout.exponents(p)[channel] = exponent;
  wide.write_spectrum(s, exponent, layout.channel(p, channel));
}

// Sums of backward's blocks, for one channel each: `partials` spectra, `skip_partials` numbers.
struct PartialSums {
  const float *spectra, *skips;
  int partials, skip_partials;
};

// A channel's gradient of the skip: the sum of `count` partial sums, in a fixed order.
template <int kThreads>
DNASM_DEVICE void skip_gradient(const Params& p, int channel, const float* skips, int count, float* scratch) {
  if (!p.dskip) return;
  float sum = 0;
  for (int i = thread_index(); i < count; i += kThreads) sum += skips[static_cast<int64_t>(channel) * count + i];
  sum = block_sum<kThreads>(sum, scratch);
  if (thread_index() == 0) p.dskip[channel] = sum;
}

// The gradients of a channel's filter and skip from their partial sums; fill(s, r, v) has row r of split s.
template <class W, class Fill>
DNASM_DEVICE void filter_gradient(const W& wide, const Params& p, const PartialSums& sums, const Fill& fill) {
  const int channel = block_index();
  const FilterTaps taps(p, channel, W::kSplits * W::kN);
  skip_gradient<W::kThreads>(p, channel, sums.skips, sums.skip_partials, wide.scratch);
  if (!p.dk) return;
  DNASM_UNROLL_ONCE
  for (int s = 0; s < W::kSplits; ++s)
    wide.inverse(s, [&](int r, Complex(&v)[16]) { fill(s, r, v); }, [&](int n, Complex z) { taps.store(p.dk, n, z, s > 0); });
  taps.clear_rest(p.dk, p.filter_length, thread_index(), W::kThreads);
}

// As many points as fit: what another split adds to dk goes through memory again.
template <class P>
using GradientWide = PlanWide<P, kSharedLimit < (160 << 10) ? 8192 : 16384>;

template <class P>
DNASM_KERNEL(GradientWide<P>::kThreads, GradientWide<P>::blocks_per_sm(GradientWide<P>::kFew ? 80 : 128))
filter_gradient_kernel(const Params p, const PartialSums sums) {
  const GradientWide<P> wide;
  const float* spectra = sums.spectra + static_cast<int64_t>(block_index()) * sums.partials * (2 * P::kLength);
  filter_gradient(wide, p, sums, [&](int s, int r, Complex(&v)[16]) {
    wide.read_partials(s, spectra, sums.partials, 2 * P::kLength, 1 / P::kGain, r, v);
  });
}

}  // namespace dnasm
