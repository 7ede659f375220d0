# fish completion for tftpd. Built by `make manuals`; changes to this file are lost.

complete -c tftpd -f
complete -c tftpd -n __fish_use_subcommand -s h -l help -d 'show a summary'
complete -c tftpd -n __fish_use_subcommand -l version -d 'show the version'

complete -c tftpd -n __fish_use_subcommand -a run -d 'serve in the foreground, as twistd -n tftp does'
complete -c tftpd -n '__fish_seen_subcommand_from run' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from run' -l config -s c -r -F -d 'the YAML file'

complete -c tftpd -n __fish_use_subcommand -a check -d 'report every problem of a configuration'
complete -c tftpd -n '__fish_seen_subcommand_from check' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from check' -F

complete -c tftpd -n __fish_use_subcommand -a explain -d 'say what a client would be answered, and why'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l config -s c -r -F -d 'the YAML file'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l client -x -d 'who asks'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l to -x -d 'the address that it asks'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l mac -x -d 'its MAC address, instead of what this host knows'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l mode -x -d 'netascii or octet, which is the default'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l option -x -d 'an option of the request, such as blksize=1468; any number of them'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l user -x -d 'decide with the rights of this user, as the daemon does under twistd --uid'
complete -c tftpd -n '__fish_seen_subcommand_from explain' -l json -d 'print one JSON object'

complete -c tftpd -n __fish_use_subcommand -a import-map -d 'turn a map file of tftp-hpa into rules for rewrite:'
complete -c tftpd -n '__fish_seen_subcommand_from import-map' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from import-map' -F

complete -c tftpd -n __fish_use_subcommand -a schema -d 'print the JSON Schema of the configuration'
complete -c tftpd -n '__fish_seen_subcommand_from schema' -s h -l help -d 'show a summary'

complete -c tftpd -n __fish_use_subcommand -a install-units -d 'put systemd\'s units and a configuration in place'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -s h -l help -d 'show a summary'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -l prefix -x -a '(__fish_complete_directories)' -d 'units go to DIR/lib/systemd/system (default: /usr/local)'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -l root -x -a '(__fish_complete_directories)' -d 'everything goes below DIR, as for a package'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -l socket -d 'systemd holds the port, and the daemon no privilege'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -l dry-run -d 'only tell what would be done'
complete -c tftpd -n '__fish_seen_subcommand_from install-units' -l force -d 'replace an existing configuration too'
