# Read by cpack before anything is done.
if(NOT CPACK_CONFIGURED_PREFIX STREQUAL "/usr")
	message(FATAL_ERROR "a package is for /usr, and this folder was configured for "
		"${CPACK_CONFIGURED_PREFIX}: cmake --preset package && cmake --build build/package && "
		"cd build/package && cpack -G DEB")
endif()
