/* Of FTB's own agent. Programs include it and use nothing of it. */
#ifndef FTB_MANAGER_LIB_H
#define FTB_MANAGER_LIB_H

#include "ftb_def.h"

#endif
