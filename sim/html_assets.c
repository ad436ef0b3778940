/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's style and script. The Makefile turns each file into a list of byte values
 * (build/gen/report.css.inc), since C11 has no #embed and promises string literals of 4,095 bytes
 * only.
 */
#include "html_assets.h"

static const unsigned char style_bytes[] = {
#include <gen/report.css.inc>
};
static const unsigned char script_bytes[] = {
#include <gen/report.js.inc>
};

const struct html_asset html_style = {style_bytes, sizeof style_bytes};
const struct html_asset html_script = {script_bytes, sizeof script_bytes};
