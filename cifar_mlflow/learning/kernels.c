/* PReLU, batch normalization and 2 x 2 max-pooling, forward and backward, for kernels.py.
 *
 * The functions stand in kernels.inc, which is compiled for each level of x86 processors and each type of elements.
 * Channels are last in memory, and their number is a multiple of 16, the most LANES.
 */
#include <math.h>
#include <stdint.h>

/* A sum has this many parts, whatever the number of threads, so that it always comes to the same bits. */
#define PARTS 64
/* Fewer elements are not worth a second thread. */
#define SERIAL 32768

typedef float float32;
typedef uint16_t bfloat16;
/* NAME(f) is f_avx2_float32 and so on. */
#define PASTED(name, level, element) name##_##level##_##element
#define EXPANDED(name, level, element) PASTED(name, level, element)
#define NAME(name) EXPANDED(name, LEVEL, ELEMENT)
#define INLINE static inline __attribute__((always_inline))

#define LEVEL generic
#define LANES 4
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LEVEL avx2
#define LANES 8
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define LEVEL avx512
#define LANES 16
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options
#endif

/* Changes with what the functions take or come to: kernels.py calls no other version than its own. */
int version(void)
{
    return 1;
}

/* How many floats batch normalization needs to work in. */
int64_t scratch_size(int64_t channels)
{
    return (2 * PARTS + 3) * channels;
}
