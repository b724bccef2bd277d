// The transform in float32, without tensor cores: filters to spectra, gradients of spectra to gradients of filters.
//
// Of a plan of L points, split s of `splits` takes the frequencies m = s + splits m': the input, folded by
// e(n1 (s + 1/4) / splits) and turned by e(r (s + 1/4) / L), goes through a plain DFT of kN = L / splits points in
// shared memory, one smaller radix and radix 16, in place: digit m'_j ends where n'_j stood.
#pragma once

#include "io.cuh"
#include "tables.cuh"

namespace dnasm {

DNASM_DEVICE Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
DNASM_DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
DNASM_DEVICE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
DNASM_DEVICE Complex conjugate(Complex a) { return {a.re, -a.im}; }

// v[m] = sum_n v[n] e(n m / kR), or e(-n m / kR).
template <int kR, bool kInverse>
DNASM_DEVICE void small_dft(Complex (&v)[kR]) {
  if constexpr (kR > 1) {
    constexpr float kCos[5] = {1.0f, 0.92387953251128674f, 0.70710678118654752f, 0.38268343236508977f, 0.0f};
    Complex even[kR / 2], odd[kR / 2];
    DNASM_UNROLL
    for (int k = 0; k < kR / 2; ++k) even[k] = v[2 * k], odd[k] = v[2 * k + 1];
    small_dft<kR / 2, kInverse>(even);
    small_dft<kR / 2, kInverse>(odd);
    DNASM_UNROLL
    for (int k = 0; k < kR / 2; ++k) {
      const int turn = k * (16 / kR);  // of 16
      Complex t = odd[k];
      if (turn == 4) {
        t = kInverse ? Complex{t.im, -t.re} : Complex{-t.im, t.re};
      } else if (turn) {
        const float c = turn < 4 ? kCos[turn] : -kCos[8 - turn], s = turn < 4 ? kCos[4 - turn] : kCos[turn - 4];
        t = t * Complex{c, kInverse ? -s : s};
      }
      v[k] = even[k] + t;
      v[k + kR / 2] = even[k] - t;
    }
  }
}

// z^0, z^1, ...
template <int kCount>
DNASM_DEVICE void powers(Complex z, Complex (&w)[kCount]) {
  w[0] = {1, 0}, w[1] = z;
  DNASM_UNROLL
  for (int m = 2; m < kCount; ++m) w[m] = w[m / 2] * w[m - m / 2];
}

constexpr int kWidest = kSharedLimit < 160 << 10 ? 8192 : 16384;  // points of 8 bytes

DNASM_SHARED_CODE int default_wide_threads(int points) { return points >= 8192 ? 512 : points >= 512 ? points / 16 : 32; }

template <int kPoints, int kThreadsOfBlock = default_wide_threads(kPoints)>
struct Wide {
  static constexpr int kN = kPoints, kThreads = kThreadsOfBlock;
  static constexpr size_t kSharedBytes = (kN + kN / 16 + kN / 256) * sizeof(Complex) + 256;
  int splits;
  float* scratch;   // for block_sum
  Complex* points;

  explicit DNASM_DEVICE Wide(int parts)
      : splits(parts),
        scratch(reinterpret_cast<float*>(dynamic_shared())),
        points(reinterpret_cast<Complex*>(dynamic_shared() + 256)) {}
  static DNASM_DEVICE int padded(int i) { return i + i / 16 + i / 256; }  // rows would all start in one bank
  DNASM_DEVICE Complex& at(int i) const { return points[padded(i)]; }
  // e(n (s + 1/4) / L); exact up to L = 2^22
  DNASM_DEVICE Complex turn(int n, int s) const {
    const uint32_t length = static_cast<uint32_t>(kN) * static_cast<uint32_t>(splits);
    const uint32_t quarters = static_cast<uint32_t>(n) * static_cast<uint32_t>(4 * s + 1) & (4 * length - 1);
    return cos_sin_pi(static_cast<float>(quarters) * (0.5f / static_cast<float>(length)));
  }
  // The small radix comes first, so that plans' inner 16 x 16 frequencies are the last two digits.
  DNASM_SHARED_CODE static int radix(int size) {
    while (size > 16) size /= 16;
    return size;
  }
  // m' at position i of `points`: the digits, reversed.
  static DNASM_DEVICE int frequency(int i, int points = kN) {
    int m = 0, unit = 1;
    for (int size = points; size > 1; size /= radix(size)) {
      const int stride = size / radix(size);
      m += i / stride * unit, i %= stride, unit *= radix(size);
    }
    return m;
  }

  template <int kSize, bool kInverse>  // the stage on blocks of kSize points
  DNASM_DEVICE void stage() const {
    constexpr int kR = radix(kSize), kStride = kSize / kR;
    constexpr bool kSameColumn = kThreads % kStride == 0;  // in all of a thread's butterflies
    Complex root = column_root<kSize>(thread_index() % kStride);
    for (int b = thread_index(); b < kN / kR; b += kThreads) {
      const int j = b % kStride, base = b / kStride * kSize + j;
      if (!kSameColumn) root = column_root<kSize>(j);
      Complex v[kR], w[kR];
      if constexpr (kStride > 1) powers(root, w);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) {
        v[m] = at(base + m * kStride);
        if constexpr (kInverse && kStride > 1) v[m] = v[m] * conjugate(w[m]);
      }
      small_dft<kR, kInverse>(v);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) {
        if constexpr (!kInverse && kStride > 1) v[m] = v[m] * w[m];
        at(base + m * kStride) = v[m];
      }
    }
    sync_block();
  }
  template <int kSize>  // e(j / kSize)
  static DNASM_DEVICE Complex column_root(int j) {
    return cos_sin_pi(static_cast<float>(j) * (2.0f / static_cast<float>(kSize)));
  }
  template <int kSize = kN>
  DNASM_DEVICE void forward_stages() const {
    if constexpr (kSize > 1) {
      stage<kSize, false>();
      forward_stages<kSize / radix(kSize)>();
    }
  }
  template <int kSize = kN>
  DNASM_DEVICE void inverse_stages() const {
    if constexpr (kSize > 1) {
      inverse_stages<kSize / radix(kSize)>();
      stage<kSize, true>();
    }
  }

  // A thread's columns of the first stage, kThreads apart, each from the one before: few sines and cosines.
  struct Columns {
    Complex root, turn, root_step, turn_step;  // e(j / kN), e(j (s + 1/4) / L)
    DNASM_DEVICE Columns(const Wide& wide, int s)
        : root(column_root<kN>(thread_index())), turn(wide.turn(thread_index(), s)),
          root_step(column_root<kN>(kThreads)), turn_step(wide.turn(kThreads, s)) {}
    DNASM_DEVICE void next() { root = root * root_step, turn = turn * turn_step; }
  };

  // Frequencies s + splits m' of load(n), n < L, unnormalised; what is loaded goes through the first stage on its way.
  template <class Load>
  DNASM_DEVICE void forward(int s, const Load& load) const {
    constexpr int kR = radix(kN), kStride = kN / kR;
    const Complex step = turn(kStride, s), fold_step = turn(kN, s);
    Columns column(*this, s);
    for (int j = thread_index(); j < kStride; j += kThreads, column.next()) {
      Complex v[kR], w[kR], fold = fold_step;
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) v[m] = load(j + m * kStride);
      for (int n1 = 1; n1 < splits; ++n1) {
        DNASM_UNROLL
        for (int m = 0; m < kR; ++m) v[m] = v[m] + load(j + m * kStride + n1 * kN) * fold;
        fold = fold * fold_step;
      }
      powers(step, w);
      DNASM_UNROLL
      for (int m = 1; m < kR; ++m) v[m] = v[m] * w[m];
      small_dft<kR, false>(v);
      powers(column.root, w);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) at(j + m * kStride) = v[m] * w[m] * column.turn;
    }
    sync_block();
    forward_stages<kStride>();
  }
  // The adjoint: emit(n, what frequencies s + splits m' add to element n).
  template <class Emit>
  DNASM_DEVICE void inverse(int s, const Emit& emit) const {
    constexpr int kR = radix(kN), kStride = kN / kR;
    inverse_stages<kStride>();
    const Complex step = turn(kStride, s), fold_step = conjugate(turn(kN, s));
    Columns column(*this, s);
    for (int j = thread_index(); j < kStride; j += kThreads, column.next()) {
      Complex v[kR], w[kR], fold{1, 0};
      powers(column.root, w);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) v[m] = at(j + m * kStride) * conjugate(w[m] * column.turn);
      small_dft<kR, true>(v);
      powers(step, w);
      DNASM_UNROLL
      for (int m = 1; m < kR; ++m) v[m] = v[m] * conjugate(w[m]);
      for (int n1 = 0; n1 < splits; ++n1) {
        DNASM_UNROLL
        for (int m = 0; m < kR; ++m) emit(j + m * kStride + n1 * kN, v[m] * fold);
        fold = fold * fold_step;
      }
    }
    sync_block();
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

DNASM_DEVICE Complex load_tap(const Params& p, const FilterTaps& taps, int n, float scale) {
  Complex z{0, 0};
  if (taps.has_past(n)) z.re = scale * load_number(p.filter, p.filter_dtype, taps.past + n);
  if (taps.has_future(n)) z.im = -scale * load_number(p.filter, p.filter_dtype, taps.future + taps.ahead(n));
  return z;
}

// Blocks of 128 registers a thread fill an SM with 512 threads; several of them, where they are small.
DNASM_SHARED_CODE int plan_points(int length) { return length < kWidest ? length : kWidest; }
template <class P>
struct PlanWide : Wide<plan_points(P::kLength), (plan_points(P::kLength) > 8192 ? 512 : plan_points(P::kLength) >= 4096 ? 256 : default_wide_threads(plan_points(P::kLength)))> {
  using W = typename PlanWide::Wide;
  using W::W;
  static constexpr int kBlocksPerSm = 512 / W::kThreads;

  // visit(quad, point): a lane's frequencies of a tile, see plan.cuh; point(w, h) is half h of word w, and `quad` counts
  // lanes through re and im of all tiles.
  template <class Visit>
  DNASM_DEVICE void each_quad(int s, const Visit& visit) const {
    for (int i = thread_index(); i < W::kN / 8; i += W::kThreads) {
      const int outer = s + this->splits * W::frequency(i / 32, W::kN / 256);  // m1 + R1 m2
      const int tile = outer % P::kR1 * P::kR2 + outer / P::kR1, g = i % 32 / 4;
      const int row = P::kDirect ? g : sigma(g), next = P::kDirect ? 8 : 1;
      const int first = i / 32 * 256 + row * 16 + sigma(i % 4 * 2);
      visit((P::kDirect ? 0 : tile) * 64 + i % 32, [&](int w, int h) -> Complex& {
        return this->at(first + w % 2 * next * 16 + w / 2 + 2 * h);
      });
    }
  }
  // A filter's frequencies, times 2^-exponent, to where kernels of the plan read them.
  DNASM_DEVICE void write_spectrum(int s, int exponent, char* to) const {
    const float scale = power_of_two(-exponent);
    Quad* out = reinterpret_cast<Quad*>(to);
    each_quad(s, [&](int at, const auto& point) {
      Quad re, im;
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) {
        const Complex a = point(w, 0) * Complex{scale, 0}, b = point(w, 1) * Complex{scale, 0};
        re.w[w] = pack_half2(a.re, b.re), im.w[w] = pack_half2(a.im, b.im);
      }
      out[at] = re, out[at + 32] = im;
    });
  }
  // The sum of `count` partial spectra, in FilterGradient's order and `stride` floats apart, times `scale`, to the points.
  DNASM_DEVICE void read_partials(int s, const float* from, int count, int64_t stride, float scale) const {
    each_quad(s, [&](int at, const auto& point) {
      float sum[16] = {};
      const Quad* quads = reinterpret_cast<const Quad*>(from) + at / 64 * 128 + at % 32;
      for (int k = 0; k < count; ++k, quads += stride / 4) {
        DNASM_UNROLL
        for (int j = 0; j < 16; ++j) sum[j] += bits_float(quads[j / 4 * 32].w[j % 4]);
      }
      DNASM_UNROLL
      for (int j = 0; j < 8; ++j) point(j / 2, j % 2) = Complex{sum[j] * scale, sum[8 + j] * scale};
    });
    sync_block();
  }
};

constexpr int kSpectrumTop = 4;  // the scaled spectrum stays below 2^(kSpectrumTop + 1)

// Of a filter whose taps' absolute values sum to `bound`, which is at least max |K|.
DNASM_DEVICE int spectrum_exponent(float bound, int top) {
  return static_cast<int>(float_bits(bound) >> 23 & 255) - 127 - top;
}

// Blocks below channels * splits make spectra, the others the tables.
template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::kBlocksPerSm) spectrum_kernel(const Params p, const SpectrumLayout layout) {
  using W = PlanWide<P>;
  const W wide(P::kLength / W::kN);
  const int spectra = static_cast<int>(p.channels) * wide.splits;
  if (block_index() >= spectra) {
    const int row = (block_index() - spectra) * (W::kThreads / 32) + thread_index() / 32;
    if (row < P::Rows::kRows) write_table_row<P>(static_cast<Quad*>(p.spectrum), row, thread_index() % 32);
    return;
  }
  const int channel = block_index() / wide.splits, s = block_index() % wide.splits;
  const FilterTaps taps(p, channel, P::kLength);
  float bound = 0;
  wide.forward(s, [&](int n) {
    const Complex z = load_tap(p, taps, n, 1.0f);
    bound += fabsf(z.re) + fabsf(z.im);
    return z;
  });
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

// The gradients of a channel's filter and skip from their partial sums; fill(s) puts the points of split s in their places.
template <class W, class Fill>
DNASM_DEVICE void filter_gradient(const W& wide, const Params& p, const PartialSums& sums, const Fill& fill) {
  const int channel = block_index();
  const FilterTaps taps(p, channel, wide.splits * W::kN);
  skip_gradient<W::kThreads>(p, channel, sums.skips, sums.skip_partials, wide.scratch);
  if (!p.dk) return;
  for (int s = 0; s < wide.splits; ++s) {
    fill(s);
    wide.inverse(s, [&](int n, Complex z) { taps.store(p.dk, n, z, s > 0); });
  }
  taps.clear_rest(p.dk, p.filter_length, thread_index(), W::kThreads);
}

template <class P>
DNASM_KERNEL(PlanWide<P>::kThreads, PlanWide<P>::kBlocksPerSm) filter_gradient_kernel(const Params p, const PartialSums sums) {
  const PlanWide<P> wide(P::kLength / PlanWide<P>::kN);
  const float* spectra = sums.spectra + static_cast<int64_t>(block_index()) * sums.partials * (2 * P::kLength);
  filter_gradient(wide, p, sums, [&](int s) {
    wide.read_partials(s, spectra, sums.partials, 2 * P::kLength, 1 / P::kGain);
  });
}

}  // namespace dnasm
