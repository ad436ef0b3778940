/* SPDX-License-Identifier: Apache-2.0 */
/* Texts and names of the errors listed in include/err.h. */
#include "err.h"

const char *err_text(int err)
{
    switch (err) {
    case 0:
        return "ok";
#define ERR_TEXT(name, value, text)                                                                \
    case value:                                                                                    \
        return text;
        ERR_LIST(ERR_TEXT)
#undef ERR_TEXT
    default:
        return "unknown error";
    }
}

const char *err_name(int err)
{
    switch (err) {
    case 0:
        return "OK";
#define ERR_NAME(name, value, text)                                                                \
    case value:                                                                                    \
        return #name;
        ERR_LIST(ERR_NAME)
#undef ERR_NAME
    default:
        return "E_UNKNOWN";
    }
}
