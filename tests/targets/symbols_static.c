// SPDX-License-Identifier: GPL-2.0
/* Says where its functions are and waits: "known_function 0x...\n". Linked statically at a
 * fixed address. */
#include "targets/symbols_target.h"
