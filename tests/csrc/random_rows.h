// Random rows in bfloat16 and a judge of results, for the programs that sanitizers run.
#pragma once

#include <cmath>
#include <cstdio>
#include <vector>

#include "../../csrc/host/hardware.cuh"
#include "../../csrc/short/short.h"

namespace dnasm {

#if defined(__SANITIZE_THREAD__)
constexpr bool kJudged = false;  // only the order of accesses counts there
#else
constexpr bool kJudged = true;
#endif

struct Noise {
  uint64_t state = 1;
  float operator()() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<float>(state >> 40) / (1 << 24) - 0.5f;
    }
    return sum * 1.7f;
  }
  std::vector<float> operator()(int64_t n) {
    std::vector<float> values(n);
    for (auto& x : values) x = (*this)();
    return values;
  }
};
inline Noise noise;

inline void seed(uint64_t number) { host::emulator.random = number, noise.state = 2 * number + 1; }

struct Tensor {
  std::vector<uint16_t> data;  // NaNs, until filled
  int64_t d, n;
  Tensor(int64_t b, int64_t channels, int64_t length) : data(b * channels * length, 0x7fff), d(channels), n(length) {}
  Rows rows() { return {data.data(), d * n, n}; }
  Strided columns() { return {data.data(), d * n, 1, d}; }  // (batch, length, channels)
  double at(int64_t i) const { return bits_float(static_cast<uint32_t>(data[i]) << 16); }
  double row(int64_t r, int64_t t) const { return t < 0 || t >= n ? 0 : at(r * n + t); }
  double column(int64_t b, int64_t c, int64_t t) const { return t < 0 || t >= n ? 0 : at((b * n + t) * d + c); }
  void fill() {
    for (auto& x : data) x = static_cast<uint16_t>(float_to_bfloat(noise()));
  }
};

struct Judge {
  const char* what;
  double allowed, off = 0, size = 1e-300;
  void see(double found, double exact) { off += (found - exact) * (found - exact), size += exact * exact; }
  bool fine() const {
    const double relative = std::sqrt(off / size);
    const bool good = !kJudged || relative <= allowed;  // false for NaN
    if (!good) fprintf(stderr, "%s: relative error %.3e, allowed %.1e\n", what, relative, allowed);
    return good;
  }
};
template <int kCount>
bool all_fine(const Judge (&judges)[kCount]) {
  bool fine = true;
  for (const Judge& judge : judges) fine = judge.fine() && fine;
  return fine;
}

// All operands of a convolution, the results that are asked of it, and both judged against their definition.
struct Convolution {
  int64_t b, d, n, taps;
  Tensor u, in_gate, out_gate, dy, y, du, din, dout;
  std::vector<float> k, skip, dk, dskip;
  Params p{};

  Convolution(int64_t batch, int64_t channels, int64_t length, int64_t filter_length)
      : b(batch), d(channels), n(length), taps(filter_length), u(b, d, n), in_gate(b, d, n), out_gate(b, d, n), dy(b, d, n),
        y(b, d, n), du(b, d, n), din(b, d, n), dout(b, d, n), dk(d * taps, NAN), dskip(d, NAN) {
    u.fill(), in_gate.fill(), out_gate.fill(), dy.fill();
    k = noise(d * taps), skip = noise(d);
    p.batch = b, p.channels = d, p.length = n, p.filter = k.data(), p.filter_length = taps, p.dtype = kBfloat16;
    p.u = u.rows(), p.in_gate = in_gate.rows(), p.out_gate = out_gate.rows(), p.y = y.rows();
    p.dy = dy.rows(), p.du = du.rows(), p.din_gate = din.rows(), p.dout_gate = dout.rows();
    p.skip = skip.data(), p.dk = dk.data(), p.dskip = dskip.data();
  }
  bool right() const {
    Judge judges[] = {{"y", 2.3e-3}, {"du", 2.3e-3}, {"din_gate", 2.3e-3}, {"dout_gate", 2.3e-3}, {"dk", 1.5e-3}, {"dskip", 5e-3}};
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
    return all_fine(judges);
  }
};

}  // namespace dnasm
