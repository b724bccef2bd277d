// The kernels for few taps in one program, for sanitizers and planted faults: random rows, judged here in float64.
//
//   short_driver SEED...   exits 1 where a result is wrong; sanitizers and the emulator have their own codes
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/short/direct_gradient.cuh"
#include "../../csrc/short/dispatch.cu"
#include "../../csrc/short/shortconv.cuh"

using namespace dnasm;

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kJudged = false;  // only the order of accesses counts there
#else
constexpr bool kJudged = true;
#endif

uint64_t state = 1;
float noise() {
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sum += static_cast<float>(state >> 40) / (1 << 24) - 0.5f;
  }
  return sum * 1.7f;
}

struct Tensor {
  std::vector<uint16_t> data;
  int64_t d, n;
  Tensor(int64_t b, int64_t channels, int64_t length) : data(b * channels * length, 0x7fff), d(channels), n(length) {}
  Rows rows() { return {data.data(), d * n, n}; }
  Strided columns() { return {data.data(), d * n, 1, d}; }  // (batch, length, channels)
  double at(int64_t i) const { return i < 0 ? 0 : bits_float(static_cast<uint32_t>(data[i]) << 16); }
  double row(int64_t r, int64_t t) const { return t < 0 || t >= n ? 0 : at(r * n + t); }
  double column(int64_t b, int64_t c, int64_t t) const { return t < 0 || t >= n ? 0 : at((b * n + t) * d + c); }
  Tensor& fill() {
    for (auto& x : data) x = static_cast<uint16_t>(float_to_bfloat(noise()));
    return *this;
  }
};

struct Judge {
  double off = 0, size = 1e-300;
  void see(double found, double exact) { off += (found - exact) * (found - exact), size += exact * exact; }
  bool fine(const char* what, double allowed) const {
    const double relative = std::sqrt(off / size);
    const bool good = !kJudged || relative <= allowed;  // false for NaN
    if (!good) fprintf(stderr, "%s: relative error %.3e, allowed %.1e\n", what, relative, allowed);
    return good;
  }
};
bool all_fine(const Judge (&judges)[6], const char* const (&names)[6]) {
  bool fine = true;
  for (int i = 0; i < 6; ++i) fine = judges[i].fine(names[i], i < 4 ? 2.3e-3 : i < 5 ? 1e-3 : 5e-3) && fine;
  return fine;
}

template <bool kEven>
bool direct(int64_t b, int64_t d, int64_t n, int64_t taps) {
  Tensor u(b, d, n), in_gate(b, d, n), out_gate(b, d, n), dy(b, d, n), y(b, d, n), du(b, d, n), din(b, d, n), dout(b, d, n);
  u.fill(), in_gate.fill(), out_gate.fill(), dy.fill();
  std::vector<float> k(d * taps), skip(d), dk(d * taps, NAN), dskip(d, NAN);
  for (auto& x : k) x = noise();
  for (auto& x : skip) x = noise();
  Params p{};
  p.batch = b, p.channels = d, p.length = n, p.filter = k.data(), p.filter_length = taps, p.dtype = kBfloat16;
  p.u = u.rows(), p.in_gate = in_gate.rows(), p.out_gate = out_gate.rows(), p.y = y.rows();
  p.dy = dy.rows(), p.du = du.rows(), p.din_gate = din.rows(), p.dout_gate = dout.rows();
  p.skip = skip.data(), p.dk = dk.data(), p.dskip = dskip.data();
  const char* text = direct_forward(p);
  std::vector<float> scratch(direct_scratch_bytes(p) / 4 + 1, NAN);
  p.scratch = scratch.data();
  if (!text) text = direct_backward(p);
  if (text || kEven != even_rows(p)) return fprintf(stderr, "%s\n", text ? text : "not the rows that were meant"), false;
  Judge judges[6];
  for (int64_t c = 0; c < d && kJudged; ++c) {
    std::vector<double> sums(taps, 0.0);
    for (int64_t r = c; r < b * d; r += d)
      for (int64_t t = 0; t < n; ++t) {
        const auto x = [&](int64_t at) { return u.row(r, at) * in_gate.row(r, at); };
        const auto g = [&](int64_t at) { return dy.row(r, at) * out_gate.row(r, at); };
        double conv = skip[c] * x(t), dx = skip[c] * g(t);
        for (int64_t s = 0; s < taps; ++s) {
          conv += k[c * taps + s] * x(t - s), dx += k[c * taps + s] * g(t + s), sums[s] += g(t) * x(t - s);
        }
        judges[0].see(y.row(r, t), conv * out_gate.row(r, t)), judges[1].see(du.row(r, t), dx * in_gate.row(r, t));
        judges[2].see(din.row(r, t), dx * u.row(r, t)), judges[3].see(dout.row(r, t), conv * dy.row(r, t));
      }
    for (int64_t s = 0; s < taps; ++s) judges[4].see(dk[c * taps + s], sums[s]);
    judges[5].see(dskip[c], sums[0]);
  }
  return all_fine(judges, {"y", "du", "din_gate", "dout_gate", "dk", "dskip"});
}

bool gated_short(int64_t b, int64_t d, int64_t n, int64_t taps) {
  Tensor x(b, 3 * d, n), dx(b, 3 * d, n), y(b, d, n), mixed(b, d, n), dy(b, d, n), dmixed(b, d, n);
  x.fill(), dy.fill(), dmixed.fill();
  std::vector<float> w(3 * d * taps), bias(3 * d), dw(w.size(), NAN), dbias(bias.size(), NAN);
  for (auto& v : w) v = noise();
  for (auto& v : bias) v = noise();
  ShortParams p{};
  p.batch = b, p.channels = d, p.length = n, p.streams = 3, p.taps = static_cast<int>(taps), p.ahead = 1, p.dtype = kBfloat16;
  p.x = x.columns(), p.weight = w.data(), p.bias = bias.data(), p.y = y.rows(), p.mixed = mixed.rows();
  p.dy = dy.rows(), p.dmixed = dmixed.rows(), p.dx = dx.columns(), p.dweight = dw.data(), p.dbias = dbias.data();
  const char* text = short_forward(p);
  std::vector<float> scratch(short_scratch_bytes(p) / 4 + 1, NAN);
  p.scratch = scratch.data();
  if (!text) text = short_backward(p);
  if (text) return fprintf(stderr, "%s\n", text), false;
  const int64_t past = taps - 2;
  const auto conv = [&](int64_t i, int64_t c, int64_t t) {
    double sum = bias[c];
    for (int64_t j = 0; j < taps; ++j) sum += w[c * taps + j] * x.column(i, c, t + j - past);
    return sum;
  };
  const auto gradient = [&](int64_t i, int64_t s, int64_t c, int64_t t) {  // of the convolution of stream s
    if (t < 0 || t >= n) return 0.0;
    return s == 0 ? dy.row(i * d + c, t) : dmixed.row(i * d + c, t) * conv(i, (3 - s) * d + c, t);
  };
  Judge judges[6];
  for (int64_t s = 0; s < 3 && kJudged; ++s)
    for (int64_t c = 0; c < d; ++c) {
      std::vector<double> sums(taps + 1, 0.0);
      const int64_t row = s * d + c;
      for (int64_t i = 0; i < b; ++i)
        for (int64_t t = 0; t < n; ++t) {
          double back = 0;
          for (int64_t j = 0; j < taps; ++j) {
            back += w[row * taps + j] * gradient(i, s, c, t - j + past);
            sums[j] += gradient(i, s, c, t) * x.column(i, row, t + j - past);
          }
          sums[taps] += gradient(i, s, c, t);
          judges[2].see(dx.column(i, row, t), back);
          if (s == 0) judges[0].see(y.row(i * d + c, t), conv(i, c, t));
          if (s == 1) judges[1].see(mixed.row(i * d + c, t), conv(i, d + c, t) * conv(i, 2 * d + c, t));
        }
      for (int64_t j = 0; j < taps; ++j) judges[4].see(dw[row * taps + j], sums[j]);
      judges[5].see(dbias[row], sums[taps]);
    }
  return all_fine(judges, {"short y", "mixed", "dx", "", "dweight", "dbias"});
}

template <bool kDirect>
bool run(uint64_t seed) {
  host::emulator.random = seed;
  state = 2 * seed + 1;
  if (!kDirect) return gated_short(2, 35, 90, 3);
  // Three rows of one tile, of four; two units a row; taps that reach past the tile; rows that start anywhere.
  return direct<true>(3, 1, 200, 40) & direct<true>(1, 1, 1032, 20) & direct<false>(2, 1, 301, 300);
}

}  // namespace

int main(int argc, char** argv) {
  ShortKernels kernels{};
#if DNASM_DIRECT
  kernels.forward = launch_short_forward<kBfloat16, 1, false, 3>;
  kernels.direct_scratch_bytes = direct_scratch;
  kernels.direct_forward = launch_direct_forward<kBfloat16>, kernels.direct_backward = launch_direct_backward<kBfloat16>;
#else
  kernels.scratch_bytes = backward_scratch;
  kernels.forward = launch_short_forward<kBfloat16, 3, true, 3>, kernels.backward = launch_short_backward<kBfloat16, 3, true, 3>;
#endif
  register_short(kBfloat16, kernels);
  bool fine = argc > 1;
  for (int i = 1; i < argc; ++i) fine = run<DNASM_DIRECT>(atoll(argv[i])) && fine;
  return fine ? 0 : 1;
}
