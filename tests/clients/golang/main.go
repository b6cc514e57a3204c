// Paho's Go clients, as ../run has its clients: paho.mqtt.golang for 3.1 and 3.1.1, paho.golang for 5.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
)

type message struct {
	qos     byte
	retain  bool
	payload []byte
	topic   string
}

// What a reader is told to do; route and since may be empty.
type reading struct {
	qos                        byte
	count                      int
	filter, route, since, name string
}

func main() {
	what, address, version := os.Args[1], "127.0.0.1:"+os.Args[2], os.Args[3]
	switch {
	case what == "pub" && version == "5":
		publish5(address, os.Args[4], messages())
	case what == "pub":
		publish3(address, version, os.Args[4], messages())
	case version == "5":
		subscribe5(address, readingOf(os.Args[4:]))
	default:
		subscribe3(address, version, readingOf(os.Args[4:]))
	}
}

func messages() []message {
	var all []message
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.SplitN(lines.Text(), " ", 4)
		payload, err := hex.DecodeString(words[2])
		check(err)
		all = append(all, message{number(words[0]), words[1] == "1", payload, words[3]})
	}
	check(lines.Err())
	return all
}

func readingOf(words []string) reading {
	count, err := strconv.Atoi(words[1])
	check(err)
	for i, word := range words {
		if word == "-" {
			words[i] = ""
		}
	}
	return reading{number(words[0]), count, words[2], words[3], words[4], words[5]}
}

func number(word string) byte {
	n, err := strconv.ParseUint(word, 10, 8)
	check(err)
	return byte(n)
}

// Called by one goroutine at a time: the clients keep the order.
func got(by string, m message, left *int, done chan<- struct{}) {
	retain, payload := 0, "-"
	if m.retain {
		retain = 1
	}
	if len(m.payload) > 0 {
		payload = hex.EncodeToString(m.payload)
	}
	if *left > 0 {
		fmt.Println(by, m.qos, retain, payload, m.topic)
	}
	*left--
	if *left == 0 {
		close(done)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
