#include "shortconv.h"

#include <algorithm>
#include <vector>

#include "vector.h"

namespace dnasm::cpu {
namespace {

constexpr int64_t kSpan = 1024;       // positions of a row that are worked on at a time
constexpr int64_t kChannels = 16;     // channels of a block: one cache line where the channels are neighbours in memory
constexpr int64_t kEdge = kMaxTaps;   // positions that a span sees of its neighbours

using Buffer = float[kSpan + kEdge];  // a span of one channel

struct Channels {
    int64_t first, count;
};

// Positions [at, at + n) of kChannels rows, zero outside the tensor. Channels are the inner loop where they lie side by
// side, as in a (batch, length, channels) projection, so that such a view is read once and not once a channel.
void gather(const View& v, int64_t length, int64_t b, Channels which, int64_t at, int64_t n, Buffer* to) {
    const auto [first, channels] = which;
    const int64_t begin = std::clamp<int64_t>(-at, 0, n), end = std::clamp<int64_t>(length - at, begin, n);
    for (int64_t c = 0; c < channels; ++c) {
        std::fill(to[c], to[c] + begin, 0.0f);
        std::fill(to[c] + end, to[c] + n, 0.0f);
        if (v.channel != 1 || v.step == 1) read(v.row(b, first + c), at + begin, end - begin, to[c] + begin);
    }
    if (v.channel != 1 || v.step == 1) return;
    const Row rows = v.row(b, first);
    for (int64_t i = begin; i < end; ++i) {
        float line[kChannels];
        read({rows.data, 1, rows.type}, (at + i) * rows.step, channels, line);
        for (int64_t c = 0; c < channels; ++c) to[c][i] = line[c];
    }
}

void scatter(const View& v, int64_t b, Channels which, int64_t at, int64_t n, const Buffer* from) {
    const auto [first, channels] = which;
    if (v.channel != 1 || v.step == 1) {
        for (int64_t c = 0; c < channels; ++c) write(v.row(b, first + c), at, n, from[c]);
        return;
    }
    const Row rows = v.row(b, first);
    for (int64_t i = 0; i < n; ++i) {
        float line[kChannels];
        for (int64_t c = 0; c < channels; ++c) line[c] = from[c][i];
        write({rows.data, 1, rows.type}, (at + i) * rows.step, channels, line);
    }
}

template <class Body> void share(const ShortParams& p, Body body) {  // body(first channel, channels)
    p.crew.each((p.channels + kChannels - 1) / kChannels, [&](int64_t block, int64_t) {
        body(block * kChannels, std::min(kChannels, p.channels - block * kChannels));
    });
}

float dot(const float* a, const float* b, int64_t n) {
    Vec sums = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sums += load(a + i) * load(b + i);
    float sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

}  // namespace

void short_forward(const ShortParams& p) {
    const int64_t past = p.taps - 1;
    share(p, [&](int64_t first, int64_t channels) {
        Buffer x[kChannels], y[kChannels];
        for (int64_t b = 0; b < p.batch; ++b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                gather(p.x, p.length, b, {first, channels}, at - past, n + past, x);
                for (int64_t c = 0; c < channels; ++c) {
                    const float* taps = p.weight + (first + c) * p.taps;
                    std::fill(y[c], y[c] + n, p.bias ? p.bias[first + c] : 0.0f);
                    for (int64_t j = 0; j < p.taps; ++j)
                        for (int64_t i = 0; i < n; ++i) y[c][i] += taps[j] * x[c][i + j];
                }
                scatter(p.y, b, {first, channels}, at, n, y);
            }
    });
}

void short_backward(const ShortParams& p) {
    const int64_t past = p.taps - 1;
    share(p, [&](int64_t first, int64_t channels) {
        Buffer x[kChannels], dy[kChannels], dx[kChannels];
        std::vector<double> sums(size_t(kChannels * (p.taps + 1)));
        for (int64_t b = 0; b < p.batch; ++b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                gather(p.dy, p.length, b, {first, channels}, at, n + past, dy);
                if (p.dweight) gather(p.x, p.length, b, {first, channels}, at - past, n + past, x);
                for (int64_t c = 0; c < channels; ++c) {
                    const float* taps = p.weight + (first + c) * p.taps;
                    double* sum = sums.data() + c * (p.taps + 1);
                    if (p.dx) std::fill(dx[c], dx[c] + n, 0.0f);
                    for (int64_t j = 0; j < p.taps; ++j) {
                        if (p.dx)
                            for (int64_t i = 0; i < n; ++i) dx[c][i] += taps[j] * dy[c][i + past - j];
                        if (p.dweight) sum[j] += dot(dy[c], x[c] + j, n);
                    }
                    for (int64_t i = 0; i < n && p.dbias; ++i) sum[p.taps] += dy[c][i];
                }
                if (p.dx) scatter(p.dx, b, {first, channels}, at, n, dx);
            }
        for (int64_t c = 0; c < channels; ++c) {
            const double* sum = sums.data() + c * (p.taps + 1);
            for (int64_t j = 0; j < p.taps && p.dweight; ++j) p.dweight[(first + c) * p.taps + j] = float(sum[j]);
            if (p.dbias) p.dbias[first + c] = float(sum[p.taps]);
        }
    });
}

}  // namespace dnasm::cpu
