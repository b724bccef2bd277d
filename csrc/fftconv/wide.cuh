// The transform in float32, without tensor cores: filters to spectra, gradients of spectra to gradients of filters.
//
// Of a plan of kL points, split s of kSplits takes the frequencies m = s + kSplits m': the input, folded by
// e(n1 (s + 1/4) / kSplits) and turned by e(r (s + 1/4) / kL), goes through a plain DFT of kN = kL / kSplits points in
// shared memory, radix 16 and one smaller radix, in place: digit m'_j ends where n'_j stood.
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

template <int kL>
struct Wide {
  static constexpr int kN = kL < 16384 ? kL : 16384;
  static constexpr int kSplits = kL / kN;
  static constexpr int kThreads = kN >= 8192 ? 512 : kN >= 512 ? kN / 16 : 32;
  static constexpr size_t kSharedBytes = (kN + kN / 16) * sizeof(Complex) + 256;
  Complex* points;

  static DNASM_DEVICE int padded(int i) { return i + i / 16; }  // rows of 16 would all start in one bank
  DNASM_DEVICE Complex& at(int i) const { return points[padded(i)]; }
  // e(n (s + 1/4) / kL)
  static DNASM_DEVICE Complex turn(int n, int s) {
    const int64_t quarters = static_cast<int64_t>(n) * (4 * s + 1) & (4 * static_cast<int64_t>(kL) - 1);
    return cos_sin_pi(static_cast<float>(quarters) / static_cast<float>(2 * static_cast<int64_t>(kL)));
  }
  DNASM_SHARED_CODE static int radix(int size) { return size < 16 ? size : 16; }
  // m' at position i: the digits, reversed.
  static DNASM_DEVICE int frequency(int i) {
    int m = 0, unit = 1;
    for (int size = kN; size > 1; size /= radix(size)) {
      const int stride = size / radix(size);
      m += i / stride * unit, i %= stride, unit *= radix(size);
    }
    return m;
  }

  template <int kSize, bool kInverse>  // the stage on blocks of kSize points
  DNASM_DEVICE void stage() const {
    constexpr int kR = radix(kSize), kStride = kSize / kR;
    for (int b = thread_index(); b < kN / kR; b += kThreads) {
      const int j = b % kStride, base = b / kStride * kSize + j;
      Complex v[kR], w[kR];
      w[0] = {1, 0};
      w[1] = cos_sin_pi(2.0f * static_cast<float>(j) / static_cast<float>(kSize));
      DNASM_UNROLL
      for (int m = 2; m < kR; ++m) w[m] = w[m / 2] * w[m - m / 2];
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) v[m] = at(base + m * kStride) * (kInverse ? conjugate(w[m]) : Complex{1, 0});
      small_dft<kR, kInverse>(v);
      DNASM_UNROLL
      for (int m = 0; m < kR; ++m) at(base + m * kStride) = kInverse ? v[m] : v[m] * w[m];
    }
    sync_block();
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

  // Frequencies s + kSplits m' of load(n), n < kL, unnormalised.
  template <class Load>
  DNASM_DEVICE void forward(int s, const Load& load) const {
    for (int r = thread_index(); r < kN; r += kThreads) {
      Complex sum = load(r);
      for (int n1 = 1; n1 < kSplits; ++n1) sum = sum + load(r + n1 * kN) * turn(n1 * kN, s);
      at(r) = sum * turn(r, s);
    }
    sync_block();
    forward_stages();
  }
  // The adjoint: emit(n, what frequencies s + kSplits m' add to element n).
  template <class Emit>
  DNASM_DEVICE void inverse(int s, const Emit& emit) const {
    inverse_stages();
    for (int r = thread_index(); r < kN; r += kThreads) {
      const Complex z = at(r) * conjugate(turn(r, s));
      for (int n1 = 0; n1 < kSplits; ++n1) emit(r + n1 * kN, n1 ? z * conjugate(turn(n1 * kN, s)) : z);
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
};

constexpr int kSpectrumTop = 4;  // the scaled spectrum stays below 2^(kSpectrumTop + 1)

// Blocks below channels * kSplits make spectra, the others the tables.
template <int kL>
DNASM_KERNEL(Wide<kL>::kThreads, 1) spectrum_kernel(const Params p, const SpectrumLayout layout) {
  using W = Wide<kL>;
  using P = Plan<kL>;
  const int spectra = static_cast<int>(p.channels) * W::kSplits;
  if (block_index() >= spectra) {
    const int row = (block_index() - spectra) * (W::kThreads / 32) + thread_index() / 32;
    if (row < P::Rows::kRows) write_table_row<P>(static_cast<Quad*>(p.spectrum), row, thread_index() % 32);
    return;
  }
  const int channel = block_index() / W::kSplits, s = block_index() % W::kSplits;
  float* scratch = reinterpret_cast<float*>(dynamic_shared());
  const W wide{reinterpret_cast<Complex*>(dynamic_shared() + 256)};
  const FilterTaps taps(p, channel, kL);

  float bound = 0;  // sum |k| >= max |K|
  for (int n = thread_index(); n < taps.taps; n += W::kThreads) {
    bound += fabsf(load_number(p.filter, p.filter_dtype, taps.past + n));
    if (taps.both && n < taps.future_taps) bound += fabsf(load_number(p.filter, p.filter_dtype, taps.future + n));
  }
  bound = block_sum<W::kThreads>(bound, scratch);
  const int exponent = static_cast<int>(float_bits(bound) >> 23 & 255) - 127 - kSpectrumTop;
  const float scale = power_of_two(-exponent) / P::kGain;
  if (s == 0 && thread_index() == 0) layout.exponents(p)[channel] = exponent;

  wide.forward(s, [&](int n) {
    Complex z{0, 0};
    if (taps.has_past(n)) z.re = scale * load_number(p.filter, p.filter_dtype, taps.past + n);
    if (taps.has_future(n)) z.im = -scale * load_number(p.filter, p.filter_dtype, taps.future + taps.ahead(n));
    return z;
  });
  uint16_t* out = reinterpret_cast<uint16_t*>(layout.channel(p, channel));
  for (int i = thread_index(); i < W::kN; i += W::kThreads) {
    const Complex z = wide.at(i);
    const int at = P::position(s + W::kSplits * W::frequency(i));
    const uint32_t both = pack_half2(z.re, z.im);
    out[at] = static_cast<uint16_t>(both);
    out[at + P::kImHalves] = static_cast<uint16_t>(both >> 16);
  }
}

// The filter's gradient from its spectrum's partial sums, one block a channel; skip's gradient from its partial sums.
template <int kL>
DNASM_KERNEL(Wide<kL>::kThreads, 1) filter_gradient_kernel(const Params p, const float* partial, int partials,
                                                           const float* skip_sums, int skip_partials) {
  using W = Wide<kL>;
  using P = Plan<kL>;
  const int channel = block_index();
  float* scratch = reinterpret_cast<float*>(dynamic_shared());
  const W wide{reinterpret_cast<Complex*>(dynamic_shared() + 256)};
  const FilterTaps taps(p, channel, kL);

  if (p.dskip) {
    float sum = 0;
    for (int i = thread_index(); i < skip_partials; i += W::kThreads)
      sum += skip_sums[static_cast<int64_t>(channel) * skip_partials + i];
    sum = block_sum<W::kThreads>(sum, scratch);
    if (thread_index() == 0) p.dskip[channel] = sum;
  }
  if (!p.dk) return;
  const float* spectra = partial + static_cast<int64_t>(channel) * partials * (2 * kL);
  for (int s = 0; s < W::kSplits; ++s) {
    for (int i = thread_index(); i < W::kN; i += W::kThreads) {
      const int at = P::position(s + W::kSplits * W::frequency(i));
      const int tile = at / 512, lane = at / 8 % 32, element = at % 8;
      const int first = tile * 512 + element / 4 * 128 + lane * 4 + element % 4;
      Complex sum{0, 0};
      for (int k = 0; k < partials; ++k) {
        const float* from = spectra + static_cast<int64_t>(k) * (2 * kL) + first;
        sum = sum + Complex{from[0], from[256]};
      }
      wide.at(i) = sum * Complex{1 / P::kGain, 0};
    }
    sync_block();
    wide.inverse(s, [&](int n, Complex z) {
      if (taps.has_past(n)) p.dk[taps.past + n] = z.re + (s ? p.dk[taps.past + n] : 0.0f);
      if (taps.has_future(n)) {
        float& out = p.dk[taps.future + taps.ahead(n)];
        out = (s ? out : 0.0f) - z.im;
      }
    });
  }
  // Lags from `length` on reach into no sequence.
  for (int64_t n = taps.taps + thread_index(); n < p.filter_length; n += W::kThreads) p.dk[taps.past + n] = 0;
  for (int64_t n = taps.future_taps + thread_index(); taps.both && n < p.filter_length; n += W::kThreads)
    p.dk[taps.future + n] = 0;
}

}  // namespace dnasm
