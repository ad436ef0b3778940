/* SPDX-License-Identifier: Apache-2.0 */
/* The status page's document. The Makefile turns page/status.html into a list of byte values
 * (build/gen/status.html.inc), since C11 has no #embed. */
#include "page.h"

const unsigned char page_html[] = {
#include <gen/status.html.inc>
};
const size_t page_html_bytes = sizeof page_html;
