# Run by cpack on what is about to be packed: what Debian's policy wants beside what is installed.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(doc ${root}/usr/share/doc/spoa-ratelimit)
list(GET CPACK_PACKAGED_FILES 0 copyright)
list(GET CPACK_PACKAGED_FILES 1 changelog)
configure_file(${copyright} ${doc}/copyright COPYONLY)
configure_file(${changelog} ${doc}/changelog.Debian COPYONLY)
file(CHMOD ${doc}/copyright ${doc}/changelog.Debian
	PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
file(GLOB pages ${root}/usr/share/man/man*/*.[0-9])
execute_process(COMMAND gzip -9nf ${pages} ${doc}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)
