# `cpack -G DEB` in a folder that was configured with the preset "package". Read by contrib/CMakeLists.txt.
file(STRINGS /etc/os-release release REGEX "^(ID|VERSION_ID)=")
string(REGEX MATCH "(^|;)ID=\"?([a-z]+)" _ "${release}")
set(release_id "${CMAKE_MATCH_2}")
string(REGEX MATCH "(^|;)VERSION_ID=\"?([0-9]+)" _ "${release}")
# What is built on another Debian links with other libraries, and so is another version.
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
if(release_id STREQUAL "debian" AND CMAKE_MATCH_2)
	set(CPACK_DEBIAN_PACKAGE_RELEASE 1~deb${CMAKE_MATCH_2})
endif()
set(PACKAGE_VERSION ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})
set(PACKAGE_MAINTAINER "spoa-ratelimit maintainers <maintainers@spoa-ratelimit.example>" CACHE STRING
	"who answers for the package")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME spoa-ratelimit)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "${PACKAGE_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "rate limiting agent for HAProxy")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"HAProxy asks it about each request over SPOP and gets back whether the
request is within its limits: by user, API key, address, endpoint or for
all together, with plans, bursts and honest headers. Counters live in
memory and survive restarts, or in Redis, where several HAProxy nodes
share them.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
# What is built for another machine is not of this one's architecture, which CPack takes it for.
if(CMAKE_CROSSCOMPILING)
	execute_process(COMMAND ${CMAKE_C_COMPILER} -dumpmachine
		OUTPUT_VARIABLE machine OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
	execute_process(COMMAND dpkg-architecture -t ${machine} -q DEB_HOST_ARCH
		OUTPUT_VARIABLE CPACK_DEBIAN_PACKAGE_ARCHITECTURE OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Whoever has systemd has both; a container may have just these two of it.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers | systemd-sysusers, \
systemd | systemd-standalone-tmpfiles | systemd-tmpfiles")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "haproxy (>= 2.2), redis-server | valkey-server")
set(CPACK_STRIP_FILES ON)

set(here ${CMAKE_CURRENT_LIST_DIR})
set(made ${CMAKE_CURRENT_BINARY_DIR}/package)
# dpkg keeps what the operator wrote in these.
set(conffiles "")
foreach(name ${CONF_FILES})
	string(APPEND conffiles "/etc/spoa-ratelimit/${name}\n")
endforeach()
file(CONFIGURE OUTPUT ${made}/conffiles CONTENT "${conffiles}" @ONLY)
file(READ ${here}/changelog changelog)
file(CONFIGURE OUTPUT ${made}/changelog CONTENT "${changelog}" @ONLY)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${made}/conffiles ${here}/postinst ${here}/prerm ${here}/postrm)

# Paths in the unit follow the prefix; a package for /usr/local would be none.
set(CPACK_PROJECT_CONFIG_FILE ${here}/prefix.cmake)
set(CPACK_CONFIGURED_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_PRE_BUILD_SCRIPTS ${here}/finish.cmake)
set(CPACK_PACKAGED_FILES ${here}/copyright ${made}/changelog)
include(CPack)
