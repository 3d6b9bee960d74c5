// SPDX-License-Identifier: GPL-2.0
/*
 * Where XSAVE puts AVX-512 and PKRU is the processor's choice (CPUID leaf 0xd): Intel leaves room for MPX, AMD does not.
 * Before version 14 gdb knows Intel's places only, and later ones go by the size, so Intel's is what all of them
 * understand. gdb: gdbsupport/x86-xstate.h, i387_guess_xsave_layout().
 */
#include "export/internal.h"

#include <string.h>

#define XCR0_AT 464 /* the kernel's sw_usable bytes begin with it */
#define HEADER_END 576

static const struct {
	unsigned bit;
	size_t size, intel;
} parts[] = {
	{2, 256, 576},				       /* AVX */
	{3, 64, 960},				       /* MPX */
	{4, 64, 1024},	{5, 64, 1088},		       /* AVX-512 */
	{6, 512, 1152}, {7, 1024, 1664}, {9, 8, 2688}, /* PKRU */
};
#define PARTS (sizeof(parts) / sizeof(*parts))
#define PARTS_MASK 0x2ffu

size_t xstate_x86_64(const void *data, size_t len, uint8_t out[XSTATE_X86_64_MAX])
{
	size_t packed = HEADER_END, end = HEADER_END;
	const uint8_t *from = data;
	uint64_t xcr0;

	if (len < HEADER_END)
		return 0;
	memcpy(&xcr0, from + XCR0_AT, sizeof(xcr0));
	for (size_t i = 0; i < PARTS; i++) {
		if (xcr0 & 1u << parts[i].bit) {
			packed += parts[i].size;
			end = parts[i].intel + parts[i].size;
		}
	}
	if (xcr0 & ~(uint64_t)PARTS_MASK || len != packed || len == end)
		return 0; /* Intel's, or one that we know nothing of */
	memset(out, 0, XSTATE_X86_64_MAX);
	memcpy(out, from, HEADER_END);
	packed = HEADER_END;
	for (size_t i = 0; i < PARTS; i++) {
		if (!(xcr0 & 1u << parts[i].bit))
			continue;
		memcpy(out + parts[i].intel, from + packed, parts[i].size);
		packed += parts[i].size;
	}
	return end;
}
