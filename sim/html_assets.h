/* SPDX-License-Identifier: Apache-2.0 */
/* Style and script of the report pages: sim/report.css and sim/report.js, as bytes in the program.
 */
#ifndef SHOAL_SIM_HTML_ASSETS_H
#define SHOAL_SIM_HTML_ASSETS_H

#include <stddef.h>

struct html_asset {
    const unsigned char *bytes;
    size_t byte_count;
};

extern const struct html_asset html_style, html_script;

#endif
