// Discrete Fourier transforms of 1, 2, 3, 4, 5 and 8 elements: y[m] = sum_j a[j] exp(Sign * 2 pi i j m / R), in place.
#pragma once
#include "vector.h"

namespace dnasm::cpu {

template <int R, int Sign> struct Dft;

template <int Sign> struct Dft<1, Sign> {
    static void run(Cvec*) {}
};

template <int Sign> struct Dft<2, Sign> {
    static void run(Cvec* a) {
        const Cvec sum = a[0] + a[1];
        a[1] = a[0] - a[1];
        a[0] = sum;
    }
};

template <int Sign> struct Dft<3, Sign> {
    static void run(Cvec* a) {
        const Vec half = splat(0.5f), sine = splat(0.866025403784438647f);
        const Cvec sum = a[1] + a[2], difference = a[1] - a[2];
        const Cvec even = {a[0].re - half * sum.re, a[0].im - half * sum.im};
        const Cvec odd = quarter_turn<Sign>({sine * difference.re, sine * difference.im});
        a[0] = a[0] + sum;
        a[1] = even + odd;
        a[2] = even - odd;
    }
};

template <int Sign> struct Dft<4, Sign> {
    static void run(Cvec* a) {
        const Cvec s02 = a[0] + a[2], d02 = a[0] - a[2], s13 = a[1] + a[3];
        const Cvec d13 = quarter_turn<Sign>(a[1] - a[3]);
        a[0] = s02 + s13;
        a[1] = d02 + d13;
        a[2] = s02 - s13;
        a[3] = d02 - d13;
    }
};

template <int Sign> struct Dft<5, Sign> {
    static void run(Cvec* a) {
        const Vec c1 = splat(0.309016994374947424f), c2 = splat(-0.809016994374947424f);
        const Vec s1 = splat(0.951056516295153572f), s2 = splat(0.587785252292473129f);
        const Cvec p = a[1] + a[4], q = a[2] + a[3], m = a[1] - a[4], n = a[2] - a[3];
        const Cvec e1 = {a[0].re + c1 * p.re + c2 * q.re, a[0].im + c1 * p.im + c2 * q.im};
        const Cvec e2 = {a[0].re + c2 * p.re + c1 * q.re, a[0].im + c2 * p.im + c1 * q.im};
        const Cvec o1 = quarter_turn<Sign>({s1 * m.re + s2 * n.re, s1 * m.im + s2 * n.im});
        const Cvec o2 = quarter_turn<Sign>({s2 * m.re - s1 * n.re, s2 * m.im - s1 * n.im});
        a[0] = a[0] + p + q;
        a[1] = e1 + o1;
        a[2] = e2 + o2;
        a[3] = e2 - o2;
        a[4] = e1 - o1;
    }
};

template <int Sign> struct Dft<8, Sign> {
    static void run(Cvec* a) {
        Cvec even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
        Dft<4, Sign>::run(even);
        Dft<4, Sign>::run(odd);
        const Vec root = splat(0.707106781186547524f);
        const Cvec turned1 = odd[1] + quarter_turn<Sign>(odd[1]), turned3 = quarter_turn<Sign>(odd[3]) - odd[3];
        odd[1] = {root * turned1.re, root * turned1.im};
        odd[2] = quarter_turn<Sign>(odd[2]);
        odd[3] = {root * turned3.re, root * turned3.im};
        for (int m = 0; m < 4; ++m) {
            a[m] = even[m] + odd[m];
            a[m + 4] = even[m] - odd[m];
        }
    }
};

}  // namespace dnasm::cpu
